"""An adapter's folder: PEFT's layout, and one file of ours that says which base the adapter was made for.

In: a folder. Out: an :class:`AdapterFolder`: PEFT's settings, and the :class:`Base` that they belong to.

    adapter_config.json         PEFT's: rank, alpha, targets, fully trained parts, the base's name
    adapter_model.safetensors   the low-rank matrices, and the fully trained parts
    base.json                   ours: the base's name and digest, and how it was quantized while training
    processor_config.json ...   the processor and the tokenizer, as beside any model

A base's digest is of its tensors' names, types, shapes and bytes: the same weights in the other layout, or cut into
other files, have the same one; one changed bit, or another precision, has another. How adapters are made is
`flashsloth.training.lora`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashsloth.errors import FlashSlothError, LoadError
from flashsloth.model.loading import by_our_names, is_published
from flashsloth.model.loading.folders import ADAPTER_CONFIG, CONFIG, find_folder, is_adapter, local_folder
from flashsloth.model.loading.non_finite import ADVICE, non_finite_tensors, wrong_dtypes
from flashsloth.model.loading.safetensors_files import (
    CheckpointError,
    StoredTensor,
    read_header,
    read_json,
    stored_tensors,
)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_FILE = "base.json"
PEFT_EXTRA = "pip install 'flashsloth[train]'"
UNQUANTIZED = "none"
_DOWN = ".lora_A."
"""In the name of a matrix [rank, width]."""


class AdapterError(FlashSlothError, ValueError):
    """An adapter that cannot be used as it is, or not with this base."""


@dataclass(frozen=True)
class Base:
    """What an adapter was made for.

    Attributes:
        name: a folder, a name on the hub, or `nano`.
        digest: of its tensors, see :func:`base_digest`; None where nobody wrote it down.
        quantize: how the language model was held while the adapter learned: `none` or `nf4`.
    """

    name: str
    digest: str | None = None
    quantize: str = UNQUANTIZED

    def save(self, folder: Path) -> None:
        """Write it beside an adapter."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        (folder / BASE_FILE).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter on disk: its folder, PEFT's settings as they are written, and its base."""

    path: Path
    settings: dict[str, Any]
    base: Base | None

    def tensors(self) -> list[StoredTensor]:
        """What the adapter's weights hold, by their header.

        Raises:
            AdapterError: if there are none, or the file is damaged.
        """
        file = self.path / ADAPTER_WEIGHTS
        if not file.is_file():
            raise AdapterError(f"{self.path} has {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS}: copy the whole folder")
        try:
            tensors = read_header(file)
        except CheckpointError as error:
            raise AdapterError(str(error)) from error
        stored = max((tensor.shape[0] for tensor in tensors if _DOWN in tensor.name and tensor.shape), default=0)
        said = max([self.settings["r"], *(self.settings.get("rank_pattern") or {}).values()])
        if stored and said > stored:
            raise AdapterError(f"{self.path / ADAPTER_CONFIG}: r is {said}, but {file.name} has rank {stored}")
        return tensors

    def check_values(self) -> None:
        """Refuse weights that are no floating-point numbers, or not finite.

        Raises:
            AdapterError: naming them.
        """
        tensors = self.tensors()
        if problems := wrong_dtypes(tensors) or non_finite_tensors(tensors):
            more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise AdapterError(f"{self.path} cannot be computed with: {problems[0]}{more}; {ADVICE}")

    def base_folder(self, given: str | os.PathLike[str] | None = None) -> Path:
        """The folder of the base that is `given`, or else of the one written down.

        Raises:
            AdapterError: if it cannot be found, or is no whole checkpoint.
        """
        name = self.base.name if given is None and self.base is not None else given
        if name is None:
            raise AdapterError(f"{self.path} does not say what it was made for: name its base with --base")
        try:
            folder = find_folder(name)
        except (LoadError, CheckpointError) as error:
            hint = "" if given is not None else ": say where it is now with `flashsloth merge --base`"
            raise AdapterError(
                f"{self.path} was made for {str(name)!r}, which cannot be found ({error}){hint}"
            ) from error
        if is_adapter(folder):
            raise AdapterError(f"the base {folder} is an adapter itself: merge it first with `flashsloth merge`")
        return folder


def read_adapter(name_or_path: str | os.PathLike[str]) -> AdapterFolder:
    """An adapter's settings and base.

    Args:
        name_or_path: a folder, or a name on the hub.

    Raises:
        AdapterError: if it holds no adapter of the kind that this package makes.
        CheckpointError: if there is no such folder.
    """
    folder = local_folder(name_or_path)
    if not is_adapter(folder):
        what = "a whole checkpoint" if (folder / CONFIG).is_file() else f"no {ADAPTER_CONFIG}"
        raise AdapterError(f"{folder} holds {what}, expected an adapter, as a stage with `adapter:` leaves one")
    settings = read_json(folder / ADAPTER_CONFIG)
    if settings.get("peft_type") != "LORA":
        raise AdapterError(f"{folder} holds an adapter of type {settings.get('peft_type')!r}, expected 'LORA'")
    _check_settings(folder / ADAPTER_CONFIG, settings)
    return AdapterFolder(folder, settings, _base_of(folder, settings))


def _check_settings(file: Path, settings: dict[str, Any]) -> None:
    """Refuse what PEFT would take any kind of error for, or memory.

    Raises:
        AdapterError: naming the first.
    """
    ranks, alphas = ((settings.get(f"{name}_pattern") or {}) for name in ("rank", "alpha"))
    targets = settings.get("target_modules")
    names = targets if isinstance(targets, list) else [targets]
    checks = (
        ("r", _is_rank(settings.get("r")), "a whole number, at least 1"),
        ("lora_alpha", _is_number(settings.get("lora_alpha")), "a number"),
        ("target_modules", all(isinstance(name, str) for name in names), "names of layers"),
        ("rank_pattern", isinstance(ranks, dict) and all(map(_is_rank, ranks.values())), "a rank a layer"),
        ("alpha_pattern", isinstance(alphas, dict) and all(map(_is_number, alphas.values())), "a number a layer"),
    )
    for name, is_right, expected in checks:
        if not is_right:
            raise AdapterError(f"{file}: {name} is {settings.get(name)!r}, expected {expected}")


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _base_of(folder: Path, settings: dict[str, Any]) -> Base | None:
    """Ours if it is there; else the name that PEFT writes down."""
    if not (folder / BASE_FILE).is_file():
        name = settings.get("base_model_name_or_path")
        return None if not name else Base(str(name))
    fields = read_json(folder / BASE_FILE)
    known = {field.name for field in dataclasses.fields(Base)}
    if set(fields) - known or not isinstance(fields.get("name"), str):
        raise AdapterError(f"{folder / BASE_FILE} holds {sorted(fields)}, expected {sorted(known)}")
    return Base(**fields)


def base_digest(folder: Path) -> str:
    """The digest of a checkpoint's tensors, such as `sha256:9f2c...`; reads all of them once.

    Raises:
        CheckpointError: if the weights are not whole.
    """
    named = by_our_names(stored_tensors(folder), published=is_published(folder))
    total = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        content = np.memmap(tensor.file, np.uint8, "r", tensor.start, (tensor.nbytes,)).data if tensor.nbytes else b""
        line = f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(content).hexdigest()}\n"
        total.update(line.encode())
    return f"sha256:{total.hexdigest()}"
