"""`torch.export` takes the pass over a prompt whole, and what it exports computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_config, make_processor, picture, user

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

CHATS: dict[str, list[Any]] = {
    "one picture": [[user("What is this?", picture(1))]],
    "two pictures, two turns": [
        [user("What is this?", picture(1)), assistant("A dog."), user("And this?", picture(2))],
    ],
    "a padded batch": [
        [user("What is this?", picture(1)), assistant("A dog."), user("Sure?")],
        [user("Where?", picture(2), picture(3))],
    ],
}


def exported(model: FlashSlothForConditionalGeneration, inputs: dict[str, Any]) -> Any:
    return torch.export.export(model, (), {**inputs, "use_cache": False}, strict=False).module()


@pytest.mark.parametrize(
    ("chats", "attention"), [("one picture", "sdpa"), ("two pictures, two turns", "eager"), ("a padded batch", "sdpa")]
)
def test_the_prompts_pass(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, chats: str, attention: str
) -> None:
    model = make_tiny_model(attention=attention)
    inputs = encode(tiny_processor, CHATS[chats])
    run = exported(model, inputs)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**inputs).logits[real]
        torch.testing.assert_close(run(**inputs, use_cache=False).logits[real], expected, rtol=1e-4, atol=1e-4)
        other = {**inputs, "pixel_values": inputs["pixel_values"].flip(-1)}
        expected = model(**other).logits[real]
        torch.testing.assert_close(run(**other, use_cache=False).logits[real], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="does not mark exactly"):  # checks stay where nothing is exported
        model(**{**inputs, "image_index": inputs["image_index"].roll(1, dims=1)})


@pytest.mark.slow
def test_any_batch_length_and_number_of_pictures(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor
) -> None:
    model = make_tiny_model(attention="sdpa")
    inputs = encode(tiny_processor, [*CHATS["a padded batch"], CHATS["one picture"][0]])
    rows, length, pictures = (torch.export.Dim(name, min=1, max=512) for name in ("rows", "length", "pictures"))
    shapes: dict[str, Any] = {name: {0: rows, 1: length} for name in inputs}
    shapes |= {"pixel_values": {0: pictures}, "use_cache": None}
    program = torch.export.export(
        model, (), {**inputs, "use_cache": False}, strict=False, dynamic_shapes=shapes
    ).module()
    for chats in CHATS.values():
        other = encode(tiny_processor, chats)
        real = other["attention_mask"].bool()
        with torch.no_grad():
            found, expected = program(**other, use_cache=False).logits, model(**other).logits
        torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-4)


def test_pictures_without_their_positions_are_refused(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, [user("What is this?", picture(1))])
    with pytest.raises(ValueError, match="exported with the processor's position tensors"):
        exported(tiny_model, {name: inputs[name] for name in ("input_ids", "pixel_values")})


def test_several_views(tiny_tokenizer: Any, make_tiny_model: TinyModelMaker) -> None:
    config = make_config(tiny_tokenizer, image_grid=2)
    inputs = encode(make_processor(tiny_tokenizer, config), [user("What is this?", picture(1))])
    model = make_tiny_model(image_grid=2)
    with torch.no_grad():
        found = exported(model, inputs)(**inputs, use_cache=False).logits
        torch.testing.assert_close(found, model(**inputs).logits, rtol=1e-4, atol=1e-4)
