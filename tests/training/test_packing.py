"""Packed questions and packed samples are what each is alone: the same loss, the same gradients, the same logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.training.data import Sample
from flashsloth.training.dataloader import ConversationCollator, split_turns
from flashsloth.training.packing import PADDING_SAMPLE, SHARED, apart, fill_rows, join_questions, join_samples
from flashsloth.training.stages import STAGES

TURNS = [("What is it?", "a cat"), ("Where is the chair?", "left"), ("How many?", "3"), ("", "nothing asked")]


def sample(seed: int, turns: int = 4, *, picture: bool = True, independent: bool = True) -> Sample:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    messages = []
    for question, answer in TURNS[:turns]:
        parts = [{"type": "text", "text": question}]
        if picture and not messages:
            parts.insert(0, {"type": "image", "image": Image.fromarray(pixels)})
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return Sample(messages, ["answer"] * turns, independent)


def collator(processor: FlashSlothProcessor, attention: str = "eager", **changes: Any) -> ConversationCollator:
    packing = changes.pop("packing", False)
    stage = STAGES["instruction"].model_copy(update={"template": "chat", **changes})
    return ConversationCollator(processor, stage, attention, packing)


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def several() -> list[Sample]:
    """With a picture and without, one turn and three, two pictures, a picture in a later turn, questions apart."""
    two = sample(8, turns=1, independent=False)
    two.messages[0]["content"].insert(1, sample(9).messages[0]["content"][0])
    later = sample(10, turns=2, picture=False, independent=False)
    later.messages[2]["content"].insert(0, sample(11).messages[0]["content"][0])
    return [
        sample(1, turns=3, independent=False),
        sample(2, turns=1, picture=False, independent=False),
        two,
        sample(3, turns=2, independent=False),
        later,
        sample(4, turns=4),
        sample(5, turns=1, independent=False),
    ]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_loss_and_gradients_are_those_of_the_questions_alone(
    attention: str, make_tiny_model, tiny_processor: FlashSlothProcessor
) -> None:
    model: FlashSlothForConditionalGeneration = make_tiny_model(attention=attention)
    samples = [sample(1), sample(2, turns=2), sample(3, turns=3, picture=False)]
    collate = collator(tiny_processor, attention)

    packed = collate(samples)
    assert packed["input_ids"].shape[0] == len(samples)
    model(**packed).loss.backward()
    packed_gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    packed_loss = model(**packed).loss

    alone = [Sample(turn, ["answer"]) for s in samples for turn in split_turns(s.messages)]
    batch = collate(alone)
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()

    assert torch.allclose(packed_loss, loss, atol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(packed_gradients[name], parameter.grad, atol=1e-5), name


def test_a_conversation_beside_packed_questions_stays_a_conversation(
    make_tiny_model, tiny_processor: FlashSlothProcessor
) -> None:
    model = make_tiny_model()
    conversation = sample(4, turns=3, independent=False)
    collate = collator(tiny_processor)
    alone = collate([conversation])
    mixed = collate([conversation, sample(5)])
    length = alone["input_ids"].shape[1]
    expected = model(**alone).logits[0]
    found = model(**mixed).logits[0, :length]
    # A conversation is one question's row to the packer: its later turns see its earlier ones.
    assert torch.equal(mixed["input_ids"][0, :length], alone["input_ids"][0])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("template", ["chat", "plain"])
def test_packed_samples_have_the_loss_and_gradients_of_unpacked_ones(
    attention: str, template: str, make_tiny_model, tiny_processor: FlashSlothProcessor
) -> None:
    model = make_tiny_model(attention=attention)
    samples = several() if template == "chat" else [s for s in several() if not s.independent]
    plain = collator(tiny_processor, attention, template=template)(samples)
    most = 220 if template == "chat" else 30
    packed = collator(tiny_processor, attention, template=template, packing=True, max_length=most)(samples)
    assert plain["input_ids"].shape[0] == len(samples)
    assert 1 < packed["input_ids"].shape[0] < len(samples)
    assert int((packed["labels"] != IGNORED_LABEL).sum()) == int((plain["labels"] != IGNORED_LABEL).sum())
    loss, gradients = loss_and_gradients(model, plain)
    packed_loss, packed_gradients = loss_and_gradients(model, packed)
    assert torch.allclose(packed_loss, loss, atol=1e-5)
    assert packed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(packed_gradients[name], gradient, atol=1e-5), name


def per_sample_losses(model: Any, batch: dict[str, Any]) -> dict[tuple[int, int], list[float]]:
    """The loss of every supervised token, by row and sample."""
    logits = model(**batch).logits
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED_LABEL, reduction="none"
    )
    found: dict[tuple[int, int], list[float]] = {}
    for row, place in (batch["labels"][:, 1:] != IGNORED_LABEL).nonzero().tolist():
        key = (row, int(batch["sample_index"][row, place + 1]))
        found.setdefault(key, []).append(float(losses[row, place]))
    return found


@torch.no_grad()
def test_a_sample_changes_no_other_in_its_row(make_tiny_model, tiny_processor: FlashSlothProcessor) -> None:
    model = make_tiny_model()
    collate = collator(tiny_processor, packing=True)
    samples = [sample(seed, turns=2, independent=False) for seed in range(4)]
    before = per_sample_losses(model, collate(samples))
    assert list(before) == [(0, 1), (0, 2), (0, 3), (0, 4)]
    for changed in range(4):
        pixels = [*samples]
        pixels[changed] = sample(50 + changed, turns=2, independent=False)
        words = [*samples]
        words[changed] = sample(changed, turns=2, independent=False)
        words[changed].messages[0]["content"][1]["text"] = "Who is it?"
        for others in (pixels, words):
            lengths = [len(collate.encode(found).row["input_ids"]) for found in others]
            [order] = fill_rows(lengths, collate.max_length)  # the longest stands first
            after = per_sample_losses(model, collate(others))
            for number in range(4):
                same = np.allclose(before[0, number + 1], after[0, order.index(number) + 1], atol=1e-5)
                assert same == (number != changed), (changed, number)


@torch.no_grad()
def test_a_sample_without_pictures_sees_none_of_its_neighbours(
    make_tiny_model, tiny_processor: FlashSlothProcessor
) -> None:
    model = make_tiny_model()
    blind = sample(1, turns=1, picture=False, independent=False)
    alone = collator(tiny_processor)([blind])
    packed = collator(tiny_processor, packing=True)([sample(2, independent=False), blind])
    place = packed["sample_index"][0] == 2
    length = alone["input_ids"].shape[1]
    assert int(place.sum()) == length
    found = model(**packed).logits[0, place]
    assert torch.allclose(found, model(**alone).logits[0], atol=1e-5)


def test_rows_are_filled_and_never_over_full() -> None:
    lengths = [50, 90, 10, 40, 100, 30, 130]
    rows = fill_rows(lengths, 100)
    assert sorted(number for row in rows for number in row) == list(range(7))
    assert rows == [[6], [4], [1, 2], [0, 3], [5]]
    for row in rows:
        assert len(row) == 1 or sum(lengths[number] for number in row) <= 100


def test_the_first_token_of_a_sample_is_not_learned_from_another() -> None:
    row = {name: [1, 2] for name in ("input_ids", "labels")}
    row |= {name: [0, 0] for name in ("image_index", "query_turn", "question_turn")}
    assert join_samples([row, row])["labels"] == [IGNORED_LABEL, 2, IGNORED_LABEL, 2]
    assert join_samples([row, row])["sample_index"] == [1, 1, 2, 2]
    assert join_samples([row, row])["position_ids"] == [0, 1, 0, 1]


def test_mask_lets_a_question_see_the_beginning_and_itself_and_no_other_sample() -> None:
    samples = torch.tensor([[1, 1, 1, 1, 2, 2, PADDING_SAMPLE]])
    branches = torch.tensor([[SHARED, 1, 2, 2, SHARED, SHARED, SHARED]])
    visible = apart(samples, branches, "sdpa")[0, 0].int().tolist()
    assert visible == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    added = apart(samples, branches, "eager")[0, 0]
    assert ((added == 0).int().tolist()) == visible
    with pytest.raises(ValueError, match="need sdpa or eager"):
        apart(samples, branches, "flash_attention_2")


def test_rows_about_different_pictures_are_refused(tiny_processor: FlashSlothProcessor) -> None:
    rows = [
        {"input_ids": [1, 9, 3], "question_turn": [0, 0, 1], "query_turn": [0, 0, 0]},
        {"input_ids": [1, 8, 3], "question_turn": [0, 0, 1], "query_turn": [0, 0, 0]},
    ]
    with pytest.raises(ValueError, match="do not begin alike"):
        join_questions(rows)


def test_loss_stands_on_answers_alone(tiny_processor: FlashSlothProcessor) -> None:
    batch = collator(tiny_processor)([sample(6, turns=2)])
    learned = batch["input_ids"][0][batch["labels"][0] != IGNORED_LABEL]
    assert tiny_processor.tokenizer.decode(learned) == " a cat</s> left</s>"


def test_plain_template_has_no_queries(tiny_processor: FlashSlothProcessor) -> None:
    batch = ConversationCollator(tiny_processor, STAGES["alignment"])([sample(7, turns=1, independent=False)])
    assert int(batch["query_turn"].sum()) == 0
    learned = batch["input_ids"][0][batch["labels"][0] != IGNORED_LABEL]
    assert tiny_processor.tokenizer.decode(learned) == "a cat\n"
    assert tiny_processor.tokenizer.decode(batch["input_ids"][0]).startswith("<image>")
