"""Packed questions are what each is alone: the same loss, the same gradients, the same logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.training.collation import ConversationCollator, one_by_one
from flashsloth.training.data import Sample
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


def collator(processor: FlashSlothProcessor, attention: str = "eager") -> ConversationCollator:
    return ConversationCollator(processor, dataclasses.replace(STAGES["instruction"], template="chat"), attention)


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

    alone = [Sample(turn, ["answer"]) for s in samples for turn in one_by_one(s.messages)]
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
