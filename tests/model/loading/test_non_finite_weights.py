"""Weights that no model can compute with are refused at the door, named with their file, and reported by `info`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flashsloth.checkpoint.inspect import inspect_checkpoint
from flashsloth.cli.app import main
from flashsloth.model.loading import CheckpointError
from flashsloth.model.loading.non_finite import describe_non_finite
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

WEIGHTS = "model.safetensors"
NAME = "model.language_model.layers.1.mlp.fc1.weight"
NORM = "model.language_model.final_layernorm.weight"
DAMAGE = {
    "NaN": (NAME, lambda t: spoiled(t, torch.nan), "1 NaN of 4,608 numbers"),
    "infinity in a norm": (NORM, lambda t: spoiled(t, torch.inf), "1 infinite of 48 numbers"),
    "minus infinity": (NORM, lambda t: spoiled(t, -torch.inf), "1 infinite of 48 numbers"),
    "in the vision encoder": ("model.vision_tower.embeddings.patch_embedding.bias", lambda t: t * torch.nan, "32 NaN"),
    "int32": (NAME, lambda t: t.to(torch.int32), "is I32, expected one of F64, F32, F16, BF16"),
    "int8": (NAME, lambda t: t.to(torch.int8), "is I8, expected"),
    "uint8": (NAME, lambda t: t.to(torch.uint8), "is U8, expected"),
    "bool": (NAME, lambda t: t > 0, "is BOOL, expected"),
    "float8": (NAME, lambda t: t.to(torch.float8_e4m3fn), "is F8_E4M3, expected"),
    "complex": (NAME, lambda t: t.to(torch.complex64), "is C64, expected"),
}


def spoiled(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[5] = value
    return tensor


@pytest.fixture
def folder(tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path) -> Path:
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", DAMAGE)
def test_loading_and_info(folder: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, change, message = DAMAGE[case]
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, name: change(tensors[name])}, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        FlashSlothForConditionalGeneration.from_pretrained(folder)
    for part in (name, WEIGHTS, message, "download it again"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    faults = inspect_checkpoint(folder).faults
    assert len(faults) == 1
    assert name in faults[0]
    assert message in faults[0]
    assert main(["info", str(folder)]) == 1
    assert name in " ".join(capsys.readouterr().out.split())


def test_info_ends_with_1_where_tensors_are_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(folder)]) == 0
    tensors = load_file(folder / WEIGHTS)
    del tensors[NAME]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    assert main(["info", str(folder)]) == 1
    assert main(["info", str(folder), "--json"]) == 1
    assert "missing tensors" in capsys.readouterr().out


def test_numbers_too_large_for_the_type_asked_for(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, NORM: tensors[NORM] * 1e6}, folder / WEIGHTS, metadata={"format": "pt"})
    FlashSlothForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=f"{NORM} in {WEIGHTS} is F32 and too large for torch.float16"):
        FlashSlothForConditionalGeneration.from_pretrained(folder, dtype=torch.float16)


def test_huge_numbers_are_sound() -> None:
    assert not describe_non_finite(torch.full((100,), 3e38))
    assert not describe_non_finite(torch.full((100,), 60000.0, dtype=torch.float16))
    assert not describe_non_finite(torch.empty(0))
    assert describe_non_finite(torch.tensor([torch.nan, torch.inf, 0])) == "1 NaN and 1 infinite of 3 numbers"
