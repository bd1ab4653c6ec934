"""Base and adapter to a checkpoint: the same logits, the base's precision, and nothing written when in doubt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from fine_tuned import TRAINS, adapted, batch, learn, load_base, save_base, save_fine_tuned
from safetensors.torch import load_file, save_file

import flashsloth
from flashsloth.checkpoint import merge_adapter
from flashsloth.checkpoint.adapter import ADAPTER_WEIGHTS, BASE_FILE, AdapterError
from flashsloth.checkpoint.merge_adapter import MERGING_TOLERANCE, merge, merged_model
from flashsloth.model.loading import CheckpointError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


@torch.no_grad()
def logits(model: torch.nn.Module, processor: FlashSlothProcessor) -> torch.Tensor:
    return model.eval()(**batch(processor)).logits


def test_the_merged_checkpoint_is_ordinary_and_computes_the_same(
    adapter: Path, base: Path, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    done = merge(adapter, tmp_path / "merged")
    assert done.effect.relative > 100 * done.rounding.relative > 0
    assert done.merging.relative < MERGING_TOLERANCE
    assert done.dtype == "float16"
    wrapped = peft.PeftModel.from_pretrained(load_base(base), adapter)
    merged = FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "merged", dtype="auto")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float16}
    found, expected = logits(merged.float(), tiny_processor), logits(wrapped, tiny_processor)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * expected.abs().max().item())
    assert not torch.allclose(found, logits(load_base(base), tiny_processor), atol=0.5)
    config = json.loads((tmp_path / "merged" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16"
    assert "peft" not in json.dumps(config)
    assert sorted(file.name for file in (tmp_path / "merged").iterdir()) == sorted(file.name for file in base.iterdir())


def test_what_the_adapter_left_alone_keeps_its_bits(adapter: Path, base: Path, tmp_path: Path) -> None:
    merge(adapter, tmp_path / "merged")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "merged"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("model.spatial_attention_pooling", "model.projector", "model.query_tokens", "model.embedded_query")
    assert all(name.startswith((*parts, "model.language_model.layers.")) for name in changed)
    assert any(name.startswith("model.language_model.layers.") for name in changed)
    for part in parts:
        assert any(name.startswith(part) for name in changed), part


def test_load_and_ask_take_an_adapter_as_it_is(adapter: Path, tmp_path: Path) -> None:
    merge(adapter, tmp_path / "merged")
    one, other = (flashsloth.load(folder, device="cpu", optimize=False) for folder in (adapter, tmp_path / "merged"))
    assert one.dtype == other.dtype
    found, expected = one.model.state_dict(), other.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert one.answer(None, "What?", max_new_tokens=5) == other.answer(None, "What?", max_new_tokens=5)
    half = flashsloth.load(adapter, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16


def test_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", torch.float32)  # the same numbers, in another precision
    with pytest.raises(AdapterError, match="is not the base of") as error:
        merge(adapter, tmp_path / "merged", other)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_base_without_a_digest_is_taken_aloud(
    copied: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copied / BASE_FILE).unlink()
    merge(copied, tmp_path / "merged")
    assert "is taken for it unchecked" in caplog.text
    narrow = save_base(tmp_path / "narrow", text_config=_narrow())
    with pytest.raises(AdapterError, match="does not fit") as error:
        merge(copied, tmp_path / "none", narrow)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "none").exists()


def _narrow() -> dict:
    import tiny

    return {**tiny.TEXT, "intermediate_size": 64}


@pytest.mark.parametrize("damage", ["one tensor less", "one tensor more", "cut short", "gone"])
def test_a_damaged_adapter_is_refused(copied: Path, tmp_path: Path, damage: str) -> None:
    file = copied / ADAPTER_WEIGHTS
    tensors = load_file(file)
    if damage == "one tensor less":
        tensors.pop(next(name for name in tensors if "lora_B" in name))
    elif damage == "one tensor more":
        tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(3, 48)
    save_file(tensors, file, metadata={"format": "pt"})
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "gone":
        file.unlink()
    with pytest.raises(AdapterError) as error:
        merge(copied, tmp_path / "merged")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "merged").exists()


def test_a_folder_that_is_taken_is_replaced_only_when_asked_to(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    merge(adapter, out)
    (out / "mine.txt").write_text("old", encoding="utf-8")
    with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
        merge(adapter, out)
    assert (out / "mine.txt").exists()
    merge(adapter, out, replace=True)
    assert not (out / "mine.txt").exists()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("old", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not a checkpoint, so it is not replaced"):
        merge(adapter, tmp_path / "notes", replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "notes"]


def test_what_is_read_is_never_replaced(adapter: Path, base: Path) -> None:
    for out in (adapter, base, base.parent):
        with pytest.raises(AdapterError, match="holds what is to be merged"):
            merge(adapter, out, replace=True)
    assert (base / "config.json").exists()


def test_a_wrong_sum_is_caught_before_anything_is_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = merge_adapter._folded

    def forgetful(wrapped: peft.PeftModel) -> FlashSlothForConditionalGeneration:
        """One of the layers loses a thousandth of its adapter."""
        layer = wrapped.base_model.model.model.language_model.layers[1].mlp.fc1
        layer.scaling["default"] *= 0.999
        return fold(wrapped)

    monkeypatch.setattr(merge_adapter, "_folded", forgetful)
    with pytest.raises(AdapterError, match="folding it in changed logits by up to"):
        merge(adapter, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_precisions_and_a_tied_head(
    dtype: torch.dtype, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    import tiny

    text = {**tiny.TEXT, "model_type": "qwen2", "tie_word_embeddings": True}
    base = save_base(tmp_path / "base", dtype, text_config=text, tie_word_embeddings=True, lm_head_bias=False)
    folder = save_fine_tuned(tmp_path / "adapter", base, tiny_processor)
    done = merge(folder, tmp_path / "merged")
    assert done.dtype == str(dtype).removeprefix("torch.")
    model = merged_model(folder)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.dtype == dtype


def test_a_head_and_an_encoder_that_learned_are_merged_too(
    base: Path, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = adapted(base, trains=(*TRAINS, "head", "vision_encoder"))
    learn(model, tiny_processor)
    expected = logits(model, tiny_processor)
    tiny_processor.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "adapter")
    found = logits(merged_model(tmp_path / "adapter").float(), tiny_processor)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * expected.abs().max().item())
