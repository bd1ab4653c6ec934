"""Names to models, and one line for each way in which that fails."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import flashsloth
from flashsloth.errors import LoadError
from flashsloth.inference.load import LARGE_BYTES, choose_device, choose_dtype
from flashsloth.inference.load import load as load_module_function

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_folder_loads_whole(checkpoint: Path) -> None:
    sloth = flashsloth.load(str(checkpoint), device="cpu", dtype="float32")
    stored = load_file(checkpoint / "model.safetensors")
    assert sloth.name == str(checkpoint)
    assert sloth.dtype == torch.float32
    assert sloth.device == CPU
    assert not sloth.model.training
    assert torch.equal(
        sloth.model.state_dict()["model.projector.linear_1.weight"], stored["model.projector.linear_1.weight"]
    )


def test_precision_is_as_asked(checkpoint: Path) -> None:
    assert flashsloth.load(checkpoint, device="cpu", dtype="bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "device", "stored", "size", "expected"),
    [
        ("auto", CPU, torch.float32, 2 * LARGE_BYTES, torch.float32),
        ("auto", CPU, torch.float16, 1, torch.float32),
        ("auto", CUDA, torch.float32, 1, torch.bfloat16),
        ("float16", CUDA, torch.float32, 1, torch.float16),
        (torch.bfloat16, CPU, torch.float32, 1, torch.bfloat16),
    ],
)
def test_auto_precision(
    dtype: Any, device: torch.device, stored: torch.dtype, size: int, expected: torch.dtype
) -> None:
    assert choose_dtype(dtype, device, stored, size) == expected


@pytest.mark.parametrize("fast", [True, False])
def test_large_half_precision_stays_half_where_that_is_fast(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("flashsloth.inference.load"), "multiplies_bfloat16", lambda: fast)
    chosen = choose_dtype("auto", CPU, torch.float16, 2 * LARGE_BYTES)
    assert chosen == (torch.bfloat16 if fast else torch.float32)


def test_devices() -> None:
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device("cpu") == CPU
    for wrong, message in (("gpu", "expected auto"), ("cuda:99", "not available"), (3.5, "expected auto")):
        with pytest.raises(LoadError, match=message):
            choose_device(wrong)  # type: ignore[arg-type]


def broken(checkpoint: Path, tmp_path: Path, change: str) -> Path:
    """A copy of the checkpoint with one thing wrong."""
    folder = tmp_path / change
    shutil.copytree(checkpoint, folder)
    if change == "no-config":
        (folder / "config.json").unlink()
    elif change == "bad-config":
        (folder / "config.json").write_text("{")
    elif change == "other-model":
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    elif change == "no-weights":
        (folder / "model.safetensors").unlink()
    elif change == "no-processor":
        (folder / "processor_config.json").unlink()
    elif change == "no-tokenizer":
        (folder / "tokenizer.json").unlink()
    elif change == "few-weights":
        weights = {
            name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "projector" not in name
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no-config", "has no config.json"),
        ("bad-config", "config.json is not JSON"),
        ("other-model", "model of type 'llama', expected 'flashsloth'.*flashsloth new"),
        ("no-weights", "has no weights"),
        ("no-processor", "has no processor_config.json"),
        ("no-tokenizer", "has no usable processor"),
        ("few-weights", r"model.projector.linear_1.bias is missing, expected"),
    ],
)
def test_a_broken_checkpoint_is_named_in_one_line(checkpoint: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        flashsloth.load(broken(checkpoint, tmp_path, change), device="cpu")
    assert "\n" not in str(raised.value)


def test_a_name_that_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for name, message in (
        ("no/such/folder", "there is no folder 'no/such/folder'; expected"),
        ("nobody/nothing", "no folder 'nobody/nothing', and the hub cannot be reached"),
        ("file", "is a file, expected the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            flashsloth.load(name)


def test_wrong_precision(checkpoint: Path) -> None:
    with pytest.raises(LoadError, match="dtype is 'int8'; expected auto, float32, bfloat16, float16"):
        flashsloth.load(checkpoint, dtype="int8")


def test_the_name_in_the_package_is_the_function() -> None:
    assert flashsloth.load is load_module_function
