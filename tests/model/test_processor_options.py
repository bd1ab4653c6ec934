"""The processor's options: all of transformers' ways of saying them, and none that is passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import IMAGE_SIZE, encode, picture, user
from transformers.utils import PaddingStrategy

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

PROMPT = "A chat. USER: <image>\nWhat is this?<learnable> ASSISTANT:"
WORDS = "one two three four five six seven eight"
TENSORS = ("input_ids", "image_index", "query_turn", "question_turn", "attention_mask")
TOKENS = 23
"""Of `PROMPT`, as the tiny processor expands it."""
VISUAL_TOKENS = 4


def lengths(encoded: Any) -> set[int]:
    return {encoded[name].shape[1] for name in TENSORS}


def test_options_by_part_are_those_given_flat(tiny_processor: FlashSlothProcessor) -> None:
    images = {"do_rescale": False, "do_normalize": False}
    text = {"padding": "max_length", "max_length": 64, "padding_side": "right"}
    flat = tiny_processor(images=picture(), text=PROMPT, return_tensors="pt", **images, **text)
    by_part = tiny_processor(
        images=picture(), text=PROMPT, images_kwargs=images, text_kwargs=text, common_kwargs={"return_tensors": "pt"}
    )
    assert set(flat) == set(by_part)
    assert all(torch.equal(flat[name], by_part[name]) for name in flat)
    assert lengths(flat) == {64}
    assert flat["pixel_values"].max() > 100  # neither rescaled nor normalised
    chat = [user("What is this?", picture())]
    by_template = tiny_processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"images_kwargs": images, **text}
    )
    assert torch.equal(by_template["pixel_values"], flat["pixel_values"])
    assert lengths(by_template) == {64}


@pytest.mark.parametrize(("multiple", "expected"), [(None, TOKENS), (8, 24), (TOKENS, TOKENS)])
def test_rows_are_padded_to_a_multiple(
    tiny_processor: FlashSlothProcessor, multiple: int | None, expected: int
) -> None:
    encoded = tiny_processor(
        images=picture(), text=PROMPT, padding=True, pad_to_multiple_of=multiple, return_tensors="pt"
    )
    plain = tiny_processor(images=picture(), text=PROMPT, return_tensors="pt")
    assert lengths(plain) == {TOKENS}
    assert lengths(encoded) == {expected}
    assert int(encoded["attention_mask"].sum()) == TOKENS


@pytest.mark.parametrize("padding", [False, "do_not_pad", PaddingStrategy.DO_NOT_PAD])
def test_every_word_for_no_padding(tiny_processor: FlashSlothProcessor, padding: Any) -> None:
    ids = tiny_processor(text=["a", "a b c"], padding=padding)["input_ids"]
    assert len(ids[0]) < len(ids[1])


def test_the_tokenizers_own_settings_count(tiny_processor: FlashSlothProcessor, tmp_path: Path) -> None:
    tiny_processor.save_pretrained(tmp_path)
    loaded = FlashSlothProcessor.from_pretrained(tmp_path)
    loaded.tokenizer.init_kwargs.update(padding="max_length", max_length=70)
    assert lengths(loaded(images=picture(), text=PROMPT, return_tensors="pt")) == {70}
    assert lengths(loaded(images=picture(), text=PROMPT, return_tensors="pt", padding=True)) == {TOKENS}


@pytest.mark.parametrize("side", ["left", "right"])
def test_plain_text_is_cut_where_asked(tiny_processor: FlashSlothProcessor, side: str) -> None:
    whole = tiny_processor(text=WORDS)["input_ids"][0]
    tiny_processor.tokenizer.truncation_side, before = side, tiny_processor.tokenizer.truncation_side
    try:
        cut = tiny_processor(text=WORDS, truncation=True, max_length=5, return_tensors="pt")
    finally:
        tiny_processor.tokenizer.truncation_side = before
    assert cut["input_ids"][0].tolist() == (whole[-5:] if side == "left" else whole[:5])
    assert lengths(cut) == {5}


def test_the_answer_is_cut_and_the_question_is_not(tiny_processor: FlashSlothProcessor) -> None:
    text = f"{PROMPT} {WORDS}"
    cut = tiny_processor(images=picture(), text=text, truncation="longest_first", max_length=25, return_tensors="pt")
    whole = tiny_processor(images=picture(), text=text, return_tensors="pt")
    assert all(torch.equal(cut[name], whole[name][:, :25]) for name in TENSORS)
    with pytest.raises(ValueError, match="would cut a picture, a question or query tokens"):
        tiny_processor(images=picture(), text=text, truncation=True, max_length=20)


def test_visual_tokens_are_told_and_counted(tiny_processor: FlashSlothProcessor) -> None:
    encoded = tiny_processor(
        images=[picture()], text=["no picture", PROMPT], return_mm_token_type_ids=True, return_tensors="pt"
    )
    assert torch.equal(encoded["mm_token_type_ids"], (encoded["image_index"] > 0).long())
    planned = tiny_processor._get_num_multimodal_tokens(image_sizes=[(30, 40), (1000, 1)])
    assert planned["num_image_tokens"] == [VISUAL_TOKENS] * 2
    assert planned["num_image_patches"] == [1, 1]


def test_the_model_takes_what_the_processor_gives(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, [user("What?", picture())])
    told = encode(tiny_processor, [user("What?", picture())], return_mm_token_type_ids=True)
    assert torch.equal(tiny_model(**told).logits, tiny_model(**inputs).logits)
    for use_cache in (True, False):
        settings = {"max_new_tokens": 3, "use_cache": use_cache}
        assert torch.equal(tiny_model.generate(**told, **settings), tiny_model.generate(**inputs, **settings))


def test_where_pictures_stand_in_the_expanded_prompt(tiny_processor: FlashSlothProcessor) -> None:
    [conversation] = tiny_processor.apply_chat_template([[user("<image>", picture())]])
    text = [f"{conversation} <image>", "none"]
    encoded = tiny_processor(
        images=[picture(), picture()], text=text, return_text_replacement_offsets=True, return_tensors="np"
    )
    [first, second], nothing = encoded["text_replacement_offsets"]
    decoded = tiny_processor.batch_decode(encoded["input_ids"])[0]
    for found in (first, second):
        start, end = found["new_span"]
        assert decoded[start:end] == found["replacement"] == "<image>" * VISUAL_TOKENS
        start, end = found["span"]
        assert text[0][start:end] == found["text"] == "<image>"
    assert nothing == []


@dataclass
class Message:
    role: str
    content: Any
    tool_calls: list[Any] | None = None


def test_messages_as_other_clients_write_them(tiny_processor: FlashSlothProcessor, tmp_path: Path) -> None:
    picture().save(tmp_path / "it.png")
    expected = encode(tiny_processor, [user("What?", picture())])
    part = {"type": "image_url", "image_url": {"url": str(tmp_path / "it.png")}}
    words = {"type": "text", "text": "What?"}
    for message in (
        {"role": "user", "content": [part, words], "name": None},
        {"role": "user", "content": [{**part, "image_url": str(tmp_path / "it.png")}, words]},
        Message("user", [part, words]),
    ):
        found = tiny_processor.apply_chat_template(
            [message], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_pictures_given_beside_the_messages(tiny_processor: FlashSlothProcessor) -> None:
    chats = [[user("What?", picture(1))], [user("Why?")], [user("Which?", picture(2), picture(3))]]
    expected = encode(tiny_processor, chats)
    empty = [
        [{"role": "user", "content": [{"type": "image"}] * count + [{"type": "text", "text": words}]}]
        for count, words in ((1, "What?"), (0, "Why?"), (2, "Which?"))
    ]
    images = [[picture(1)], [], [picture(2), picture(3)]]
    found = encode(tiny_processor, empty, processor_kwargs={"images": images})
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_batch_of_pictures_in_one_array(tiny_processor: FlashSlothProcessor) -> None:
    pixels = np.stack([np.asarray(picture(seed)) for seed in (1, 2)])
    found = tiny_processor(images=pixels, text=[PROMPT, PROMPT], return_tensors="pt")
    expected = tiny_processor(images=[picture(1), picture(2)], text=[PROMPT, PROMPT], return_tensors="pt")
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "typo by part": ({"text_kwargs": {"paddding": True}}, "paddding"),
    "typo for pictures": ({"images_kwargs": {"do_resiz": True}}, "do_resiz"),
    "given twice": ({"padding": True, "text_kwargs": {"padding": False}}, "padding was passed two times"),
    "another padding": ({"padding": "most"}, "'most'"),
    "length of another kind": ({"max_length": -1}, "max_length"),
    "multiple of another kind": ({"pad_to_multiple_of": "8"}, "pad_to_multiple_of is '8'"),
    "multiple of no whole number": ({"pad_to_multiple_of": 2.5}, "pad_to_multiple_of is 2.5"),
    "a word for a length": ({"text_kwargs": {"max_length": "64"}}, "max_length is '64'"),
    "pairs of texts": ({"text_pair": "b"}, "text_pair"),
    "overflow": ({"return_overflowing_tokens": True}, "return_overflowing_tokens"),
    "videos": ({"videos": [1]}, "videos"),
    "another grid": ({"image_grid": 2}, "image_grid is 2, but this processor writes prompts for image_grid 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_refused(tiny_processor: FlashSlothProcessor, case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        tiny_processor(images=picture(), text=PROMPT, **options)
    assert "\n" not in str(error.value)


def test_what_asks_for_nothing_is_not_refused(tiny_processor: FlashSlothProcessor) -> None:
    nothing = {"videos": None, "audio": None, "pad_to_multiple_of": None, "return_token_type_ids": False, "stride": 0}
    nothing |= dict.fromkeys(("text_kwargs", "images_kwargs", "image_grid", "do_rescale"))
    found = tiny_processor(images=picture(), text=PROMPT, return_tensors="pt", max_length=None, **nothing)
    expected = tiny_processor(images=picture(), text=PROMPT, return_tensors="pt")
    assert set(found) == set(expected)


FIXED: dict[str, dict[str, Any]] = {
    "do_resize": {"do_resize": False},
    "do_center_crop": {"do_center_crop": True, "crop_size": {"height": 8, "width": 8}},
    "do_pad": {"do_pad": True, "pad_size": {"height": 64, "width": 64}},
    "data_format": {"data_format": "channels_last"},
    "image_mean": {"image_mean": [0.5, 0.5, 0.5, 0.5]},
    "is not channels_last": {"input_data_format": "channels_last"},
}


@pytest.mark.parametrize("name", FIXED)
def test_no_option_for_pictures_is_passed_over(tiny_processor: FlashSlothProcessor, name: str) -> None:
    pixels = np.zeros((3, 2 * IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    with pytest.raises(ValueError, match=name):
        tiny_processor.image_processor(images=pixels, return_tensors="np", **FIXED[name])
