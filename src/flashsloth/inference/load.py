"""The door: a name to a :class:`FlashSloth` that answers.

In: nothing (the small model inside the package), a folder, or a name on the Hugging Face hub; ours or in the published
layout. Out: the model on its device in its precision, with its processor. Nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from flashsloth.inference.answering import FlashSloth
from flashsloth.inference.errors import LoadError
from flashsloth.inference.precision import AUTO, DTYPES, choose_device, choose_dtype
from flashsloth.model import checkpoint
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

SHIPPED = "nano"
"""The folder inside the package with the small model."""
CONFIG_FILE = "config.json"
PROCESSOR_FILE = "processor_config.json"
WEIGHT_FILES = "*.safetensors"
DOWNLOADED = ("*.json", "*.jinja", "*.txt", "*.model", WEIGHT_FILES)
"""What a checkpoint is made of; nothing else is fetched from the hub."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
NAMED_WEIGHTS = 3
"""Weights named in an error before it says how many more."""


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = AUTO,
    dtype: str | torch.dtype = AUTO,
) -> FlashSloth:
    """Load a FlashSloth.

    Args:
        name_or_path: a folder, or a name on the hub such as "Tongbo/FlashSloth-3.2B"; None for the small model that
            comes with the package.
        device: "auto" (cuda, then mps, then cpu), or a torch device.
        dtype: "auto" (bfloat16 on an accelerator; on a processor float32, or bfloat16 for a large checkpoint stored in
            half precision where the processor is good at it), "float32", "bfloat16" or "float16".

    Raises:
        LoadError: if there is no such checkpoint, it holds something else or not everything, or the device or
            precision cannot be had.
    """
    chosen_device = choose_device(device)
    folder = shipped_folder() if name_or_path is None else find_folder(name_or_path)
    settings = _read_config(folder)
    stored_bytes = sum(file.stat().st_size for file in folder.glob(WEIGHT_FILES))
    chosen_dtype = choose_dtype(dtype, chosen_device, _stored_dtype(settings), stored_bytes)
    model = _load_model(folder, chosen_dtype)
    processor = _load_processor(folder, model.config)
    name = SHIPPED if name_or_path is None else os.fspath(name_or_path)
    return FlashSloth(model.to(chosen_device), processor, name)


def shipped_folder() -> Path:
    """Where the package keeps its small model."""
    folder = Path(str(files("flashsloth") / SHIPPED))
    if not (folder / CONFIG_FILE).is_file():
        raise LoadError(f"this installation has no small model in {folder}: install it anew, or name a checkpoint")
    return folder


def find_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder that is meant, fetched from the hub if it is none here.

    Raises:
        LoadError: if there is neither.
    """
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise LoadError(f"{name!r} is a file; expected the folder of a checkpoint, with {CONFIG_FILE} in it")
    if not HUB_NAME.fullmatch(name):
        raise LoadError(f"there is no folder {name!r}; expected one, or a name on the hub (owner/model)")
    try:
        return Path(snapshot_download(name, allow_patterns=list(DOWNLOADED)))
    except GatedRepoError as error:
        raise LoadError(f"{name!r} is gated on the hub: ask for access there, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise LoadError(f"there is no folder {name!r}, and no such name on the hub (or it is private)") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise LoadError(
            f"there is no folder {name!r}, and the hub cannot be reached: check the name, or download it where there "
            f"is a network and give its folder"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise LoadError(f"{folder} has no {CONFIG_FILE}: it is not a checkpoint; give the folder that holds one")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read as JSON ({error}): copy the checkpoint anew") from error
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    if kind != FlashSlothConfig.model_type and not checkpoint.is_published(folder):
        raise LoadError(
            f"{folder} holds a model of type {kind!r}, expected {FlashSlothConfig.model_type!r}: "
            f"`flashsloth new` joins a vision encoder and a language model into one"
        )
    if not any(folder.glob(WEIGHT_FILES)):
        raise LoadError(f"{folder} has no weights ({WEIGHT_FILES}): copy or download the whole checkpoint")
    return settings


def _stored_dtype(settings: dict[str, Any]) -> torch.dtype:
    stored = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    return DTYPES.get(str(stored).removeprefix("torch."), torch.float32)


def _load_model(folder: Path, dtype: torch.dtype) -> FlashSlothForConditionalGeneration:
    """The model with all of its weights: one that is not in the file would be random."""
    family = FlashSlothForConditionalGeneration
    try:
        model, report = family.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except OSError as error:
        raise LoadError(f"{folder} cannot be loaded ({_one_line(error)}): copy the checkpoint anew") from error
    for problem, advice in (
        ("missing_keys", "the checkpoint is incomplete"),
        ("mismatched_keys", "its config.json is another checkpoint's"),
    ):
        names = sorted(str(name) for name in report.get(problem, ()))
        if names:
            more = f" and {len(names) - NAMED_WEIGHTS} more" if len(names) > NAMED_WEIGHTS else ""
            found = problem.removesuffix("_keys")
            raise LoadError(f"{folder}: {found} weights {', '.join(names[:NAMED_WEIGHTS])}{more}: {advice}")
    return model


def _load_processor(folder: Path, config: FlashSlothConfig) -> Any:
    if checkpoint.is_published(folder):
        return checkpoint.published_processor(folder, config)
    if not (folder / PROCESSOR_FILE).is_file():
        raise LoadError(f"{folder} has no {PROCESSOR_FILE}: save the processor beside the model")
    try:
        return FlashSlothProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise LoadError(f"{folder} has no usable processor ({_one_line(error)}): save it anew beside the model") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
