"""Position tensors that do not fit are refused with what was found; those that fit become the right indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, picture, user

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.positions import (
    embedded_query_inputs,
    picture_ordinals,
    query_positions,
    rows_of_pictures,
    visual_slots,
)
from flashsloth.model.processing_flashsloth import FlashSlothProcessor


def test_pictures_are_numbered_in_their_rows() -> None:
    assert picture_ordinals(torch.tensor([0, 0, 2, 2, 2, 5])).tolist() == [1, 2, 1, 2, 3, 1]
    assert picture_ordinals(torch.tensor([], dtype=torch.long)).tolist() == []


def test_rows_of_pictures() -> None:
    image_index = torch.tensor([[0, 1, 1, 2, 2], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
    assert rows_of_pictures(3, None, image_index).tolist() == [0, 0, 2]
    assert rows_of_pictures(2, torch.tensor([0, 1]), image_index).tolist() == [0, 1]


def test_what_a_turn_reads() -> None:
    """Two rows: two pictures and two turns; no picture and one turn, padded on the left."""
    image_index = torch.tensor([[1, 1, 0, 0, 0, 2, 2, 0, 0, 0], [0] * 10])
    question_turn = torch.tensor([[0, 0, 1, 0, 0, 0, 0, 2, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0]])
    query_turn = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 2, 2], [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]])
    image_row = rows_of_pictures(2, None, image_index)
    slots = visual_slots(image_index, image_row, 2)
    features = torch.arange(2 * 3 * 1.0).view(2, 3, 1)
    inputs = embedded_query_inputs(query_turn, question_turn, features, image_row, slots, 2)
    assert inputs is not None
    assert inputs.query_index.tolist() == [[3, 4], [8, 9], [17, 18]]
    assert inputs.question_mask.tolist() == [[True, False, False], [True, False, False], [True, True, True]]
    assert inputs.question_index[:, 0].tolist() == [2, 7, 14]
    assert inputs.question_index[2].tolist() == [14, 15, 16]
    assert inputs.feature_row.tolist() == [0, 0, 1]
    assert inputs.features.squeeze(-1).tolist() == [[0, 1, 2, 3, 4, 5], [0] * 6]
    assert inputs.feature_mask is not None
    assert inputs.feature_mask.tolist() == [[True] * 3 + [False] * 3, [True] * 6, [False] * 6]


def test_no_turn_needs_nothing() -> None:
    nothing = torch.zeros(1, 4, dtype=torch.long)
    image_row = torch.tensor([0])
    slots = visual_slots(torch.tensor([[0, 1, 1, 0]]), image_row, 2)
    assert embedded_query_inputs(nothing, nothing, torch.zeros(1, 3, 1), image_row, slots, 2) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: picture_ordinals(torch.tensor([1, 0])), r"must ascend, found \[1, 0\]"),
        (lambda: rows_of_pictures(2, None, torch.tensor([[1, 1]])), r"counts \[1\] pictures .* but 2 were given"),
        (lambda: rows_of_pictures(2, torch.tensor([0]), torch.tensor([[1]])), r"shape \(1,\), expected \[2\]"),
        (lambda: visual_slots(torch.tensor([[1, 1]]), torch.tensor([1]), 2), "names row 1 of a batch of 1"),
        (lambda: visual_slots(torch.tensor([[1, 1]]), torch.tensor([-1]), 2), "names row -1"),
        (lambda: visual_slots(torch.tensor([[1, 1, 1]]), torch.tensor([0]), 2), "has 3 positions .* expected 2"),
        (lambda: visual_slots(torch.tensor([[1, 1, 2, 2]]), torch.tensor([0]), 2), "4 visual positions, but the 1"),
        (lambda: query_positions(torch.tensor([[1, 1, 1]]), 2), "marks 3 positions, expected a multiple of 2"),
        (lambda: query_positions(torch.tensor([[1, 1, 1, 2]]), 2), "does not mark 2 positions for every turn"),
        (lambda: query_positions(torch.tensor([[0, 1], [1, 0]]), 2), "does not mark 2 positions for every turn"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def without(*names: str) -> Any:
    return lambda inputs: {name: tensor for name, tensor in inputs.items() if name not in names}


def replaced(name: str, change: Any) -> Any:
    return lambda inputs: {**inputs, name: change(inputs[name])}


MISTAKES = {
    "pictures left out": (without("pixel_values"), "no pictures were given"),
    "picture positions left out": (without("image_index"), "image_index was not given"),
    "query positions left out": (without("query_turn"), "query_turn was not given"),
    "question positions left out": (without("question_turn"), "question_turn"),
    "a picture too many": (replaced("pixel_values", lambda t: t.repeat(2, 1, 1, 1, 1)), "but 4 were given"),
    "a picture too few": (replaced("pixel_values", lambda t: t[:1]), "but 1 were given"),
    "another size": (replaced("pixel_values", lambda t: t[..., :20]), r"expected \[pictures, 1, 3, 24, 24\]"),
    "another number of views": (replaced("pixel_values", lambda t: t.repeat(1, 5, 1, 1, 1)), "expected"),
    "cut at the end": (lambda inputs: {**inputs, "input_ids": inputs["input_ids"][:, :-1]}, "does not mark exactly"),
    "marks moved": (replaced("image_index", lambda t: t.roll(1, dims=1)), "does not mark exactly"),
    "ids twice": (lambda inputs: {**inputs, "inputs_embeds": torch.zeros(1, 1, 48)}, "exactly one of"),
    "no ids": (without("input_ids"), "exactly one of"),
    "pictures twice": (lambda inputs: {**inputs, "mm_encoder_outputs": {"image": object()}}, "not both"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_the_model_refuses_inputs_that_do_not_agree(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, case: str
) -> None:
    inputs = encode(tiny_processor, [[user("What?", picture(1))], [user("And?", picture(2))]])
    change, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message) as error:
        tiny_model(**change(inputs))
    assert "\n" not in str(error.value)


def test_a_prompt_cut_by_hand_is_refused(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, [user("What?", picture(1)), assistant("A dog."), user("And?")])
    start = inputs["image_index"][0].nonzero()[1].item()  # inside the picture
    cut = {name: tensor[:, start:] if tensor.ndim == 2 else tensor for name, tensor in inputs.items()}
    with pytest.raises(ValueError, match="has 3 positions in image_index, expected 4"):
        tiny_model(**cut)


def test_padding_does_not_count(make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor) -> None:
    """Positions are counted over real tokens, wherever padding stands, even in the middle."""
    model = make_tiny_model()
    inputs = encode(tiny_processor, [user("What is this?", picture(1))])
    hole = 7  # inside the picture's opening words
    wide = {}
    for name, tensor in inputs.items():
        if tensor.ndim == 2:
            filler = torch.zeros(1, 3, dtype=tensor.dtype)
            tensor = torch.cat([filler, tensor[:, :hole], filler, tensor[:, hole:], filler], dim=1)
        wide[name] = tensor
    with torch.no_grad():
        ours = model(**wide).logits[wide["attention_mask"].bool()]
        torch.testing.assert_close(ours, model(**inputs).logits[0], rtol=1e-5, atol=1e-4)
