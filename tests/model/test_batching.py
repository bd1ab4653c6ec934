"""A batch of anything gives what each sample gives alone, and what comes later changes nothing before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_processor, picture, user

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.model.prompt_layout import POSITION_TENSORS

LOGITS = 1e-5
"""The largest difference allowed, relative to the largest logit."""

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one picture": [user("What is this?", picture(1)), assistant("A dog.")],
    "no picture": [user("Why is the sky blue?"), assistant("It is not.")],
    "two pictures": [user("Which?", picture(2), picture(3)), assistant("The left one.")],
    "many turns": [
        user("What is this?", picture(4)),
        assistant("A chair."),
        user("What colour is it?"),
        assistant("Red."),
        user("Sure?"),
        assistant("Yes"),
    ],
    "a picture in every turn": [
        user("And this?", picture(5)),
        assistant("A cat."),
        user("", picture(6)),
        assistant("Two."),
    ],
    "a picture in the second turn": [
        user("Hello."),
        assistant("Hello!"),
        user("Look at these: which is larger?", picture(7), picture(8), picture(9)),
        assistant("The last"),
    ],
    "no words": [{"role": "user", "content": [{"type": "image", "image": picture(10)}]}, assistant("A table.")],
}


@pytest.fixture(params=["standard", "hd"])
def model(request: pytest.FixtureRequest, make_tiny_model: TinyModelMaker) -> FlashSlothForConditionalGeneration:
    return make_tiny_model(image_grid=2 if request.param == "hd" else 1)


@pytest.fixture
def processor(model: FlashSlothForConditionalGeneration, tiny_tokenizer: Any) -> FlashSlothProcessor:
    return make_processor(tiny_tokenizer, model.config)


def logits(model: FlashSlothForConditionalGeneration, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=LOGITS * float(theirs.abs().max()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_any_batch_gives_what_each_gives_alone(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, side: str
) -> None:
    batch = encode(processor, list(CONVERSATIONS.values()), padding_side=side)
    together = logits(model, batch)
    for row, chat in enumerate(CONVERSATIONS.values()):
        alone = logits(model, encode(processor, chat))[0]
        close(together[row][batch["attention_mask"][row].bool()], alone)


@pytest.mark.parametrize("pair", [("one picture", "two pictures"), ("no picture", "no picture")])
def test_pairs(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, pair: tuple[str, str]
) -> None:
    chats = [CONVERSATIONS[name] for name in pair]
    batch = encode(processor, chats, padding_side="left")
    together = logits(model, batch)
    for row, chat in enumerate(chats):
        close(together[row][batch["attention_mask"][row].bool()], logits(model, encode(processor, chat))[0])


def test_the_loss_of_a_batch_is_the_mean_over_its_answers(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    chats = list(CONVERSATIONS.values())
    with torch.no_grad():
        loss = tiny_model(**encode(tiny_processor, chats, padding_side="left", return_labels=True)).loss
        total = count = 0.0
        for chat in chats:
            inputs = encode(tiny_processor, chat, return_labels=True)
            learned = int((inputs["labels"][:, 1:] != -100).sum())
            total += tiny_model(**inputs).loss.item() * learned
            count += learned
    assert loss.item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("name", ["many turns", "a picture in every turn", "a picture in the second turn"])
def test_what_comes_later_changes_nothing_before(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, name: str
) -> None:
    """Each turn reads its own question, and no picture that stands after its queries."""
    chat = CONVERSATIONS[name]
    whole = logits(model, encode(processor, chat))[0]
    for turns in range(2, len(chat), 2):
        part = logits(model, encode(processor, chat[:turns]))[0]
        close(whole[: len(part)], part)


def test_every_turn_reads_its_own_question_and_its_pictures(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    """The queries' update, seen from outside: it changes with the turn's question and with each picture before it."""

    def updates(chat: list[dict[str, Any]]) -> torch.Tensor:
        seen = []

        def keep(_: Any, arguments: tuple, output: torch.Tensor) -> None:
            index = arguments[1].query_index
            seen.append((output - arguments[0]).flatten(0, 1)[index])

        handle = tiny_model.model.embedded_query.register_forward_hook(keep)
        logits(tiny_model, encode(tiny_processor, chat))
        handle.remove()
        return seen[0]  # [n, Q, D]

    chat = [user("What?", picture(1)), assistant("A dog."), user("And?", picture(2)), assistant("A cat.")]
    before = updates(chat)
    assert before.abs().amax(dim=(1, 2)).min() > 0.1
    other_question = updates([*chat[:2], user("Eh?", picture(2)), chat[3]])
    assert torch.equal(other_question[0], before[0])
    assert not torch.allclose(other_question[1], before[1], atol=1e-3)
    other_picture = updates([*chat[:2], user("And?", picture(3)), chat[3]])
    assert torch.equal(other_picture[0], before[0])
    assert not torch.allclose(other_picture[1], before[1], atol=1e-3)


def cut(inputs: dict[str, torch.Tensor], start: int, end: int, **more: Any) -> dict[str, Any]:
    """Positions `start` to `end` of one row, its mask up to `end`."""
    part = {name: inputs[name][:, start:end] for name in ("input_ids", *POSITION_TENSORS)}
    return {**part, "attention_mask": inputs["attention_mask"][:, :end], **more}


@pytest.mark.parametrize("name", ["many turns", "a picture in every turn", "a picture in the second turn"])
def test_a_conversation_continued_from_its_cache_equals_the_whole(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, name: str
) -> None:
    chat = CONVERSATIONS[name]
    inputs = encode(processor, chat)
    whole = logits(model, inputs)
    seam = encode(processor, chat[:2])["input_ids"].shape[1]
    pictures = inputs["pixel_values"]
    first = int(inputs["image_index"][:, :seam].max())
    cache = None
    parts = []
    for start, end, count in ((0, seam, first), (seam, whole.shape[1], len(pictures))):
        seen = {"pixel_values": pictures[:count], "image_row": torch.zeros(count, dtype=torch.long)} if count else {}
        with torch.no_grad():
            output = model(**cut(inputs, start, end, **seen), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    close(torch.cat(parts, dim=1), whole)


def test_features_stand_in_for_pixels(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor
) -> None:
    inputs = encode(processor, list(CONVERSATIONS.values()))
    expected = logits(model, inputs)
    with torch.no_grad():
        features = model.get_image_features(inputs.pop("pixel_values"))
    assert torch.equal(logits(model, {**inputs, "mm_encoder_outputs": {"image": features}}), expected)


def test_embeddings_stand_in_for_ids(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, CONVERSATIONS["one picture"])
    expected = logits(tiny_model, inputs)
    inputs["inputs_embeds"] = tiny_model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(logits(tiny_model, inputs), expected)


def test_logits_to_keep(tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor) -> None:
    inputs = encode(tiny_processor, CONVERSATIONS["one picture"])
    expected = logits(tiny_model, inputs)
    close(logits(tiny_model, {**inputs, "logits_to_keep": 2}), expected[:, -2:])
    places = torch.tensor([1, 5])
    close(logits(tiny_model, {**inputs, "logits_to_keep": places}), expected[:, places])
