"""`create` on tiny random backbones of every family it is meant for, and on those it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from published_files import PUBLISHED_TOKENIZER
from tokenizers import processors
from transformers import CLIPConfig, CLIPVisionConfig, PreTrainedTokenizerFast, SiglipConfig, SiglipVisionConfig

from flashsloth.checkpoint.create import CreateError, create, largest_divisor, nearest_divisor
from flashsloth.checkpoint.inspect import inspect_checkpoint
from flashsloth.model.configuration_flashsloth import HD_GRID
from flashsloth.model.loading import CheckpointError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 36,
    "patch_size": 4,
}
TEXT = {
    "vocab_size": 384,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
}
TWO_TOWERS_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
    "eos_token_id": 98,
}
CLIP_MEAN = [0.4814, 0.4578, 0.4082]


def plain_tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """The tiny tokenizer as a language model brings it: without this project's tokens."""
    from tokenizers import Tokenizer

    stored = json.loads(tiny.make_tokenizer().backend_tokenizer.to_str())
    stored["added_tokens"] = [token for token in stored["added_tokens"] if token["content"] == tiny.PAD]
    tokenizer = Tokenizer.from_str(json.dumps(stored))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=tiny.PAD, **options)


def save_vision(folder: Path, config: Any) -> Path:
    torch.manual_seed(1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    settings = {"image_mean": CLIP_MEAN, "image_std": [0.27, 0.26, 0.28], "size": {"height": 36, "width": 36}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_llm(folder: Path, model_type: str, tokenizer: PreTrainedTokenizerFast | None = None, **changes: Any) -> Path:
    torch.manual_seed(2)
    config = transformers.AutoConfig.for_model(model_type, **{**TEXT, **changes})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (tokenizer or plain_tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    return save_vision(tmp_path / "siglip", SiglipVisionConfig(**VISION))


@pytest.fixture
def phi(tmp_path: Path) -> Path:
    return save_llm(tmp_path / "phi", "phi")


def load(folder: Path) -> tuple[FlashSlothForConditionalGeneration, FlashSlothProcessor]:
    return FlashSlothForConditionalGeneration.from_pretrained(folder), FlashSlothProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("phi", {}),
        ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 2}),
        ("qwen3", {"head_dim": 8}),
        ("llama", {"num_key_value_heads": 3}),
    ],
)
def test_the_language_model_starts_as_itself(
    siglip: Path, tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    llm = save_llm(tmp_path / "llm", model_type, **changes)
    model, processor = load(create(siglip, llm, tmp_path / "out"))
    causal = transformers.AutoModelForCausalLM.from_pretrained(llm)
    assert (model.lm_head.bias is not None) == (model_type == "phi")
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == changes.get("tie_word_embeddings", False)

    inputs = tiny.encode(processor, [tiny.user("What is it?", tiny.picture())])
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    image = model.get_image_features(inputs["pixel_values"])
    embeds[inputs["image_index"] > 0] = image.pooler_output.flatten(0, 1)
    anchor = model.get_input_embeddings().weight[model.config.anchor_token_id]
    embeds[inputs["query_turn"] > 0] = model.model.query_tokens(anchor)
    with torch.no_grad():
        ours = model(**inputs).logits
        theirs = causal(inputs_embeds=embeds).logits
    torch.testing.assert_close(ours[..., : theirs.shape[-1]], theirs, atol=1e-5, rtol=1e-4)
    info = inspect_checkpoint(tmp_path / "out")
    assert info.stage == 1
    assert [remark for remark in info.remarks if "untrained" not in remark] == []


@pytest.mark.parametrize(
    "config",
    [
        SiglipVisionConfig(**VISION),
        CLIPVisionConfig(**VISION),
        SiglipConfig(vision_config=VISION, text_config=TWO_TOWERS_TEXT),
        CLIPConfig(vision_config=VISION, text_config=TWO_TOWERS_TEXT, projection_dim=16),
    ],
    ids=lambda config: config.model_type,
)
def test_the_encoder_keeps_its_eyes(config: Any, phi: Path, tmp_path: Path) -> None:
    vision = save_vision(tmp_path / "vision", config)
    model, processor = load(create(vision, phi, tmp_path / "out"))
    encoder = transformers.AutoModel.from_pretrained(vision)
    encoder = getattr(encoder, "vision_model", encoder)
    pixels = processor.image_processor([tiny.picture()], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ours = model.get_image_features(pixels).last_hidden_state
        theirs = encoder(pixel_values=pixels[:, 0], output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours, theirs[:, -81:])
    assert list(processor.image_processor.image_mean) == CLIP_MEAN


def test_sizes_follow_the_published_proportions(siglip: Path, phi: Path, tmp_path: Path) -> None:
    model, _ = load(create(siglip, phi, tmp_path / "out"))
    config = model.config
    assert (config.query_size, config.embq_layer, config.pool_size, config.embq_num_heads) == (16, 1, 3, 4)
    assert config.num_image_tokens == 9
    assert not model.model.embedded_query.up.weight.any()
    assert model.model.projector.linear_1.weight.std() > 0


def test_sizes_can_be_chosen(siglip: Path, phi: Path, tmp_path: Path) -> None:
    sizes = {"hd": True, "num_query_tokens": 4, "query_size": 24, "embq_layer": 3, "pool_size": 9}
    config = load(create(siglip, phi, tmp_path / "out", dtype="bfloat16", **sizes))[0].config
    assert (config.image_grid, config.num_query_tokens, config.query_size) == (HD_GRID, 4, 24)
    assert (config.embq_layer, config.pool_size, config.num_image_tokens) == (3, 9, 5)
    assert config.dtype == torch.bfloat16


def test_the_same_seed_draws_the_same(siglip: Path, phi: Path, tmp_path: Path) -> None:
    first, second, other = (
        load(create(siglip, phi, tmp_path / str(place), seed=seed))[0].model.projector.linear_1.weight
        for place, seed in enumerate([3, 3, 4])
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_rows_are_added_only_where_none_are_spare(siglip: Path, tmp_path: Path) -> None:
    spare = save_llm(tmp_path / "spare", "phi", vocab_size=400)
    full = len(plain_tokenizer())
    tight = save_llm(tmp_path / "tight", "phi", vocab_size=full)
    model, processor = load(create(siglip, spare, tmp_path / "a"))
    assert model.config.text_config.vocab_size == 400
    model, processor = load(create(siglip, tight, tmp_path / "b"))
    causal = transformers.AutoModelForCausalLM.from_pretrained(tight)
    rows = max(processor.tokenizer.get_vocab().values()) + 1
    old = causal.get_input_embeddings().weight
    new = model.get_input_embeddings().weight
    assert rows == full + 3  # <pad>, <learnable>, <image>
    assert new.shape[0] == model.lm_head.weight.shape[0] == model.lm_head.bias.shape[0] == rows
    assert torch.equal(new[:full], old)
    torch.testing.assert_close(new[-1], old.mean(dim=0))


def test_a_tokenizer_that_begins_texts_by_itself_keeps_its_beginning(siglip: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(bos_token=tiny.PAD)
    bos = (tiny.PAD, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tiny.PAD} $A", special_tokens=[bos]
    )
    llm = save_llm(tmp_path / "llm", "llama", tokenizer)
    _, processor = load(create(siglip, llm, tmp_path / "out"))
    ids = tiny.encode(processor, [tiny.user("What?", tiny.picture())])["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_what_the_tokenizer_lacks_is_added(siglip: Path, phi: Path, tmp_path: Path) -> None:
    model, processor = load(create(siglip, phi, tmp_path / "out"))
    tokenizer, config = processor.tokenizer, model.config
    assert tokenizer.pad_token == "<pad>"
    assert tokenizer.eos_token == tiny.PAD
    assert (config.text_config.eos_token_id, config.text_config.pad_token_id) == (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert tokenizer.decode([config.anchor_token_id]).strip() == "."
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert set(model.generation_config.suppress_tokens) == {config.image_token_id, config.query_token_id}


def test_it_answers(siglip: Path, phi: Path, tmp_path: Path) -> None:
    model, processor = load(create(siglip, phi, tmp_path / "out", hd=True))
    inputs = tiny.encode(processor, [tiny.user("What is it?", tiny.picture())])
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert tokens.shape[1] <= inputs["input_ids"].shape[1] + 4
    assert inputs["pixel_values"].shape[1] == 5


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("t5", "encoder-decoder"),
        ("siglip", "sees already"),
        ("bert", "decoder-only"),
        ("nothing", "there is no folder"),
    ],
)
def test_what_is_no_decoder_is_refused(siglip: Path, tmp_path: Path, kind: str, said: str) -> None:
    folder = tmp_path / kind
    if kind == "t5":
        config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=99)
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    elif kind == "siglip":
        save_vision(folder, SiglipConfig(vision_config=VISION, text_config=TWO_TOWERS_TEXT))
    elif kind == "bert":
        sizes = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        config = transformers.BertConfig(num_hidden_layers=1, is_decoder=True, **sizes)
        transformers.BertLMHeadModel(config).save_pretrained(folder)
    with pytest.raises(CreateError, match=said):
        create(siglip, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["convnext", "swin", "phi"])
def test_what_is_no_vit_is_refused(phi: Path, tmp_path: Path, kind: str) -> None:
    folder = phi
    if kind == "convnext":
        config = transformers.ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, patch_size=4)
        folder = save_vision(tmp_path / kind, config)
    elif kind == "swin":
        config = transformers.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 1])
        folder = save_vision(tmp_path / kind, config)
    with pytest.raises(CreateError):
        create(folder, phi, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pool_that_does_not_divide_the_grid_is_refused(siglip: Path, phi: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pool_size 2 does not divide the 9x9 patch grid"):
        create(siglip, phi, tmp_path / "out", pool_size=2)


def test_an_existing_folder_is_not_written_over(siglip: Path, phi: Path) -> None:
    with pytest.raises(CheckpointError, match="not an empty folder"):
        create(siglip, phi, phi)


@pytest.mark.skipif(not PUBLISHED_TOKENIZER.is_dir(), reason=f"no published tokenizer at {PUBLISHED_TOKENIZER}")
def test_phi_with_the_published_tokenizer_gets_the_published_ids(siglip: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    llm = save_llm(tmp_path / "llm", "phi", AutoTokenizer.from_pretrained(PUBLISHED_TOKENIZER), vocab_size=51200)
    config = load(create(siglip, llm, tmp_path / "out"))[0].config
    assert (config.query_token_id, config.image_token_id, config.anchor_token_id) == (50295, 50297, 764)
    assert (config.text_config.vocab_size, config.text_config.eos_token_id) == (51200, 50296)


def test_divisors() -> None:
    assert largest_divisor(576, 32) == 32
    assert largest_divisor(384, 14) == 12
    assert [nearest_divisor(grid, 3) for grid in (27, 24, 16, 14, 7, 37)] == [3, 3, 2, 2, 1, 1]
