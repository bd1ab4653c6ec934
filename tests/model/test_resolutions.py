"""Pictures of one view and of all views: by themselves, together in one batch, and together in one row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import TinyModelMaker, assistant, encode, picture, user

from flashsloth.model.attention_maps import recording_attention
from flashsloth.model.configuration_flashsloth import HD, RESOLUTIONS, STANDARD, views_of
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.model.prompt_layout import POSITION_TENSORS

MIXED = [STANDARD, HD, STANDARD]
CHATS = [[user("What is this?", picture(1))], [user("Where is it, and why?", picture(2))], [user("Is it?", picture(3))]]
TOKENS = {STANDARD: 4, HD: 20}


@pytest.fixture
def hd_model(make_tiny_model: TinyModelMaker) -> FlashSlothForConditionalGeneration:
    return make_tiny_model(image_grid=2)


@pytest.fixture
def hd_processor(tiny_tokenizer: Any) -> FlashSlothProcessor:
    return tiny.make_processor(tiny_tokenizer, tiny.make_config(tiny_tokenizer, image_grid=2))


def last_logits(model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, logits_to_keep=1).logits[:, 0]


def test_how_many_views() -> None:
    assert [views_of(one, 2) for one in (None, *RESOLUTIONS)] == [5, 1, 5]
    assert [views_of(one, 1) for one in (None, STANDARD)] == [1, 1]
    with pytest.raises(ValueError, match="sees one view of a picture: leave it out, or load an HD model"):
        views_of(HD, 1)
    with pytest.raises(ValueError, match="resolution is 'full', expected one of standard, hd"):
        views_of("full", 2)


def test_a_resolution_is_said_in_views_and_placeholders(hd_processor: FlashSlothProcessor) -> None:
    for resolution, tokens in TOKENS.items():
        inputs = encode(hd_processor, CHATS[0], resolution=resolution)
        assert inputs["pixel_values"].shape[1] == tokens // 4
        assert int((inputs["image_index"] == 1).sum()) == tokens
        assert "image_views" not in inputs
    whole = encode(hd_processor, CHATS[0])
    assert torch.equal(encode(hd_processor, CHATS[0], resolution=HD)["pixel_values"], whole["pixel_values"])
    standard = encode(hd_processor, CHATS[0], resolution=STANDARD)["pixel_values"]
    assert torch.equal(standard, whole["pixel_values"][:, :1])


def test_each_picture_has_its_own(hd_processor: FlashSlothProcessor) -> None:
    mixed = encode(hd_processor, CHATS, resolution=MIXED)
    assert mixed["image_views"].tolist() == [1, 5, 1]
    assert mixed["pixel_values"].shape[:2] == (3, 5)
    assert not mixed["pixel_values"][0, 1:].any()
    assert (mixed["image_index"] == 1).sum(dim=1).tolist() == [TOKENS[one] for one in MIXED]
    with pytest.raises(ValueError, match="resolution names 2, expected one, or one for each of 3 pictures"):
        encode(hd_processor, CHATS, resolution=MIXED[:2])
    with pytest.raises(ValueError, match="sees one view"):
        tiny.make_processor(hd_processor.tokenizer, tiny.make_config(hd_processor.tokenizer)).image_processor(
            picture(), resolution=HD
        )


def test_text_offsets_follow(hd_processor: FlashSlothProcessor) -> None:
    encoded = hd_processor(
        images=[picture(1), picture(2)],
        text=["USER: <image>\n<image>\nWhat?<learnable>"],
        resolution=[HD, STANDARD],
        return_text_replacement_offsets=True,
        return_tensors="np",
    )
    lengths = [len(one["replacement"]) for one in encoded["text_replacement_offsets"][0]]
    assert lengths == [TOKENS[HD] * len("<image>"), TOKENS[STANDARD] * len("<image>")]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_mixture_is_as_each_alone(
    make_tiny_model: TinyModelMaker, hd_processor: FlashSlothProcessor, attention: str
) -> None:
    model = make_tiny_model(attention, image_grid=2)
    mixed = last_logits(model, encode(hd_processor, CHATS, resolution=MIXED))
    pairs = zip(CHATS, MIXED, strict=True)
    alone = torch.cat([last_logits(model, encode(hd_processor, chat, resolution=one)) for chat, one in pairs])
    torch.testing.assert_close(mixed, alone, rtol=1e-4, atol=1e-4)
    everything = last_logits(model, encode(hd_processor, CHATS))
    assert not torch.allclose(everything[0], alone[0], atol=1e-2), "the tiles change what is answered"


def test_the_whole_view_of_hd_is_what_a_standard_model_sees(
    hd_model: FlashSlothForConditionalGeneration, make_tiny_model: TinyModelMaker, hd_processor: FlashSlothProcessor
) -> None:
    inputs = encode(hd_processor, CHATS[0], resolution=STANDARD)
    assert torch.equal(last_logits(hd_model, inputs), last_logits(make_tiny_model(), inputs))


def test_unlike_pictures_in_one_row(
    hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor
) -> None:
    chat = [user("What?", picture(1), picture(2)), assistant("A dog."), user("And?", picture(3))]
    inputs = encode(hd_processor, chat, resolution=MIXED)
    assert [int((inputs["image_index"] == number).sum()) for number in (1, 2, 3)] == [4, 20, 4]
    expected = last_logits(hd_model, inputs)
    seen = hd_model.get_image_features(inputs["pixel_values"], inputs["image_views"])
    assert not seen.last_hidden_state[0, 36:].any()
    given = {name: value for name, value in inputs.items() if name not in ("pixel_values", "image_views")}
    assert torch.equal(last_logits(hd_model, {**given, "mm_encoder_outputs": {"image": seen}}), expected)
    bare = FlashSlothImageFeatures(last_hidden_state=seen.last_hidden_state, image_views=seen.image_views)
    assert torch.equal(last_logits(hd_model, {**given, "mm_encoder_outputs": {"image": bare}}), expected)


def test_ids_alone_tell_where_pictures_stand(
    hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor
) -> None:
    chats = [*CHATS[:2], [user("Look.", picture(3), picture(4)), assistant("Yes."), user("And?")]]
    inputs = encode(hd_processor, chats, resolution=[*MIXED, HD])
    bare = {name: value for name, value in inputs.items() if name not in POSITION_TENSORS}
    assert torch.equal(last_logits(hd_model, bare), last_logits(hd_model, inputs))
    wrong = {**bare, "image_views": torch.tensor([1, 5, 5, 1])}
    with pytest.raises(ValueError, match="that stand alone, expected groups of 20"):
        hd_model(**wrong)


def test_mixtures_generate(hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor) -> None:
    mixed = encode(hd_processor, CHATS[:2], resolution=MIXED[:2])
    length = mixed["input_ids"].shape[1]
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "num_return_sequences": 2, "num_beams": 2}
    together = hd_model.generate(**mixed, **settings)[:, length:]
    for row, (chat, resolution) in enumerate(zip(CHATS[:2], MIXED[:2], strict=True)):
        inputs = encode(hd_processor, chat, resolution=resolution)
        alone = hd_model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(together[2 * row : 2 * row + 2], alone)


def test_what_is_learned_of_a_mixture(
    hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor
) -> None:
    hd_model.train()
    chats = [[*chat, assistant("A red dog.")] for chat in CHATS]
    inputs = encode(hd_processor, chats, resolution=MIXED, return_labels=True)
    hd_model(**inputs).loss.backward()
    gradient = hd_model.model.spatial_attention_pooling.score_in.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()


def test_attention_is_of_the_views_that_were_shown(
    hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor
) -> None:
    with recording_attention(hd_model) as maps:
        last_logits(hd_model, encode(hd_processor, CHATS, resolution=MIXED))
    for row, resolution in enumerate(MIXED):
        found = maps.of(row)
        assert found is not None
        assert found.sap.shape[:2] == (1, views_of(resolution, 2))
        np.testing.assert_allclose(found.queries.sum(axis=(0, 2, 3, 4)), 1, rtol=1e-5)


def test_what_does_not_fit_is_refused(
    hd_model: FlashSlothForConditionalGeneration, hd_processor: FlashSlothProcessor
) -> None:
    pixels = encode(hd_processor, CHATS[0])["pixel_values"]
    with pytest.raises(ValueError, match=r"expected \[pictures, 1 or 5, 3, 24, 24\]"):
        hd_model.get_image_features(pixels[:, :3])
    with pytest.raises(ValueError, match=r"image_views is \[2\] .* expected 1 or 5 for each of 1 pictures"):
        hd_model.get_image_features(pixels, torch.tensor([2]))
    with pytest.raises(ValueError, match=r"image_views is \[5\] beside"):
        hd_model.get_image_features(pixels[:, :1], torch.tensor([5]))
    with pytest.raises(ValueError, match="expected 36 rows a view, and 1 or 5 views a picture"):
        hd_model.model.pool_features(torch.zeros(1, 72, 32))
