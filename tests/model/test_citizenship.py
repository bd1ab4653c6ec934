"""What transformers promises of every model: Auto classes, pipelines, saving and loading, dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEXT, TinyModelMaker, assistant, encode, picture, user
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

import flashsloth
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

TIED = {**TEXT, "model_type": "qwen2", "tie_word_embeddings": True}
NEW_TOKENS = 4


@pytest.fixture
def folder(tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path) -> Path:
    """A checkpoint with its processor."""
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    return tmp_path


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def test_auto_classes(
    folder: Path, tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    assert isinstance(AutoConfig.from_pretrained(folder), flashsloth.FlashSlothConfig)
    assert isinstance(AutoProcessor.from_pretrained(folder), FlashSlothProcessor)
    inputs = encode(tiny_processor, [user("What?", picture())])
    whole = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    assert isinstance(whole, FlashSlothForConditionalGeneration)
    assert torch.equal(logits(whole, inputs), logits(tiny_model, inputs))
    base = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    assert isinstance(base, flashsloth.FlashSlothModel)
    with torch.no_grad():
        assert torch.equal(tiny_model.lm_head(base(**inputs).last_hidden_state), logits(tiny_model, inputs))


@pytest.mark.parametrize("text", [dict(TEXT), TIED], ids=["phi", "tied qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_save_and_load(
    make_tiny_model: TinyModelMaker,
    tiny_processor: FlashSlothProcessor,
    tmp_path: Path,
    text: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    tied = text.get("tie_word_embeddings", False)
    made = make_tiny_model(text_config=text, tie_word_embeddings=tied, lm_head_bias=not tied)
    assert (made.lm_head.weight is made.get_input_embeddings().weight) == tied
    made.save_pretrained(tmp_path / "made")
    model = FlashSlothForConditionalGeneration.from_pretrained(
        tmp_path / "made", dtype=dtype, attn_implementation="eager"
    )
    model.save_pretrained(tmp_path / "again")
    loaded, report = FlashSlothForConditionalGeneration.from_pretrained(
        tmp_path / "again", dtype="auto", attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.dtype == dtype
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    expected, found = model.state_dict(), loaded.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    inputs = encode(tiny_processor, [user("What?", picture())])
    assert torch.equal(logits(loaded.eval(), inputs), logits(model.eval(), inputs))
    assert loaded.generation_config.suppress_tokens == model.generation_config.suppress_tokens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_close(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, dtype: torch.dtype
) -> None:
    model = make_tiny_model("sdpa")
    chats = [[user("What?", picture(1))], [user("Why?")], [user("Which?", picture(2), picture(3))]]
    inputs = encode(tiny_processor, chats, padding_side="left")
    expected = logits(model, inputs).softmax(-1)
    model.to(dtype)
    real = inputs["attention_mask"].bool()
    found = logits(model, {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}).float().softmax(-1)
    assert (found - expected)[real].abs().mean() < 1e-3
    assert found[real].isfinite().all()
    generated = model.generate(**inputs, max_new_tokens=NEW_TOKENS, num_beams=2)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + NEW_TOKENS


def test_pipeline(folder: Path, tiny_model: FlashSlothForConditionalGeneration) -> None:
    pipe = pipeline("image-text-to-text", model=str(folder), device="cpu")
    processor = pipe.processor
    chats = [
        [user("What is <image> this?", picture(1))],
        [user("Why?")],
        [user("Which?", picture(2), picture(3)), assistant("That."), user("Sure?")],
    ]

    def expected(chat: list[dict[str, Any]]) -> str:
        inputs = encode(processor, chat)
        output = pipe.model.generate(**inputs, max_new_tokens=NEW_TOKENS)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    answers = [expected(chat) for chat in chats]
    settings = {"max_new_tokens": NEW_TOKENS, "return_full_text": False}
    alone = [pipe(text=chat, **settings)[0]["generated_text"] for chat in chats]
    assert alone == answers
    # transformers batches what has the same tensors: conversations with pictures, or those without.
    with_pictures = [chats[0], chats[2]]
    batched = [answer[0]["generated_text"] for answer in pipe(text=with_pictures, batch_size=2, **settings)]
    assert batched == [answers[0], answers[2]]
    [conversation] = pipe(text=chats[0], max_new_tokens=NEW_TOKENS)
    assert conversation["generated_text"][-1] == {"role": "assistant", "content": answers[0]}


def test_pipeline_with_a_written_prompt(folder: Path) -> None:
    pipe = pipeline("image-text-to-text", model=str(folder), device="cpu")
    prompt = "A chat. USER: <image>\nWhat is this?<learnable> ASSISTANT:"
    [answer] = pipe(images=picture(1), text=prompt, max_new_tokens=NEW_TOKENS, return_full_text=False)
    [chat] = pipe(text=[user("What is this?", picture(1))], max_new_tokens=NEW_TOKENS, return_full_text=False)
    assert answer["generated_text"] == chat["generated_text"]


def test_the_encoder_is_found(tiny_model: FlashSlothForConditionalGeneration) -> None:
    assert tiny_model.get_encoder(modality="image") is tiny_model.model.vision_tower
    assert tiny_model.get_input_embeddings() is tiny_model.model.language_model.get_input_embeddings()
    assert tiny_model.get_output_embeddings() is tiny_model.lm_head


def test_vocabularies_grow(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = make_tiny_model()
    inputs = encode(tiny_processor, [user("What?", picture())])
    before = logits(model, inputs)
    model.resize_token_embeddings(400, mean_resizing=False)
    assert model.config.text_config.vocab_size == 400
    after = logits(model, inputs)
    assert after.shape[-1] == 400
    assert torch.equal(after[..., : before.shape[-1]], before)
    assert model(**inputs, labels=inputs["input_ids"]).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = FlashSlothForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert torch.equal(logits(loaded, inputs), after)


def test_attention_is_chosen_part_by_part(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model("sdpa")
    assert model.model.language_model.config._attn_implementation == "sdpa"
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    assert model.model.language_model.config._attn_implementation == "eager"
    assert model.model.vision_tower.config._attn_implementation == "sdpa"


def test_what_the_layers_saw_is_returned(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, [user("What?", picture())])
    with torch.no_grad():
        output = tiny_model(**inputs, output_hidden_states=True, output_attentions=True)
        as_tuple = tiny_model(**inputs, return_dict=False)
    layers = tiny_model.config.text_config.num_hidden_layers
    assert len(output.hidden_states) == layers + 1
    assert len(output.attentions) == layers
    assert torch.equal(as_tuple[0], output.logits)


def test_fp16_with_eager_attention_is_refused(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor
) -> None:
    """Phi-2's attention scores overflow in float16 where they are multiplied before they are scaled."""
    model = make_tiny_model("eager").to(torch.float16)
    inputs = encode(tiny_processor, [user("What?", picture())])
    with pytest.raises(ValueError, match="float16 with eager"):
        model(**inputs)


def test_parts_may_lie_on_several_devices(
    folder: Path, tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    """Some parts in memory, some on disk: what EmbQ needs is moved along."""
    pytest.importorskip("accelerate", reason="placing parts on several devices needs accelerate")
    places = {"model.vision_tower": "cpu", "model.spatial_attention_pooling": "disk", "model.projector": "cpu"}
    places |= {"model.query_tokens": "disk", "model.embedded_query": "disk", "lm_head": "cpu"}
    split = FlashSlothForConditionalGeneration.from_pretrained(
        folder,
        device_map={**places, "model.language_model": "disk"},
        offload_folder=tmp_path / "offloaded",
        attn_implementation="eager",
    ).eval()
    inputs = encode(tiny_processor, [user("What?", picture())])
    assert torch.equal(logits(split, inputs), logits(tiny_model, inputs))
    assert split.generate(**inputs, max_new_tokens=NEW_TOKENS).shape[1] == inputs["input_ids"].shape[1] + NEW_TOKENS


@pytest.mark.parametrize("grid", [1, 2])
def test_the_encoders_inner_states(make_tiny_model: TinyModelMaker, grid: int) -> None:
    model = make_tiny_model(image_grid=grid)
    views = model.config.num_views
    pixels = torch.rand(2, views, 3, 24, 24)
    plain = model.get_image_features(pixels)
    assert plain.hidden_states is None
    assert plain.attentions is None
    seen = model.get_image_features(pixels, output_hidden_states=True, output_attentions=True)
    assert torch.equal(seen.pooler_output, plain.pooler_output)
    assert len(seen.hidden_states) == model.config.num_vision_layers + 1
    assert seen.hidden_states[0].shape == (2 * views, model.config.num_patches, 32)
    assert torch.equal(seen.hidden_states[-1].unflatten(0, (2, views)).flatten(1, 2), seen.last_hidden_state)
    assert [one.shape[-1] for one in seen.attentions] == [model.config.num_patches] * model.config.num_vision_layers
    with pytest.raises(ValueError, match=r"no options \['vision_feature_layer'\]"):  # LLaVA's
        model.get_image_features(pixels, vision_feature_layer=-1)
    as_tuple = model.get_image_features(pixels, return_dict=False)
    assert torch.equal(as_tuple[0], plain.last_hidden_state)
