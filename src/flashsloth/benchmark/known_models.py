"""From what a user calls a model to its configuration, with nothing loaded.

In: a published size's name, a folder, a name on the hub, or nothing for the small model inside the package. Out: a
:class:`KnownModel`. Of a published checkpoint, whose configuration is read off its tensors' shapes, only the files'
headers are read, on the hub too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flashsloth.adapters.folder import is_adapter, read_adapter
from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.inference.load import HUB_NAME, SHIPPED, shipped_folder
from flashsloth.inference.precision import DTYPES
from flashsloth.model.checkpoint.names import by_our_names
from flashsloth.model.checkpoint.preflight import check_sizes, config_of
from flashsloth.model.checkpoint.published import is_published_dict, published_config
from flashsloth.model.checkpoint.sources import CONFIG, local_folder
from flashsloth.model.checkpoint.weight_files import CheckpointError, StoredTensor, read_json, stored_tensors
from flashsloth.model.configuration_flashsloth import HD_GRID, FlashSlothConfig

PUBLISHED_SIZES: dict[str, dict[str, Any]] = {"flashsloth": {}, "flashsloth-hd": {"image_grid": HD_GRID}}
"""Name of a published size -> where its configuration is not the default one."""
PUBLISHED_DTYPE = torch.float16


@dataclass(frozen=True)
class KnownModel:
    """A model by its numbers: its name, its configuration, and the type its weights are stored in."""

    name: str
    config: FlashSlothConfig
    stored: torch.dtype


def find_model(name: str | None, **overrides: Any) -> KnownModel:
    """The model that is meant.

    Args:
        name: see the module's docstring; a folder that has a published size's name is written ./flashsloth.
        **overrides: fields of :class:`FlashSlothConfig` to set otherwise.

    Raises:
        BenchmarkError: if there is no such model, or it is no FlashSloth.
        AdapterError: if it is an adapter whose base is not to be had.
        CheckpointError: if its files cannot be read, or the weights have other sizes than the configuration.
    """
    if name in PUBLISHED_SIZES:
        return KnownModel(name, FlashSlothConfig(**{**PUBLISHED_SIZES[name], **overrides}), PUBLISHED_DTYPE)
    is_shipped = name is None or (name == SHIPPED and not Path(name).exists())
    folder = shipped_folder() if name is None or is_shipped else _folder_of(name)
    if is_adapter(folder):  # it is folded into its base, which takes what it took before
        folder = read_adapter(folder).base_folder()
    flat = read_json(folder / CONFIG)
    tensors = _stored(folder)
    if is_published_dict(flat):
        tensors = tensors or _headers(folder, name)
        config = published_config(folder, tensors=tensors, **overrides)
    elif flat.get("model_type") == FlashSlothConfig.model_type:
        config = config_of(folder, **overrides)
    else:
        raise BenchmarkError(f"{folder} holds a model of type {flat.get('model_type')!r}, expected a FlashSloth")
    if tensors:
        check_sizes(folder, config, by_our_names(tensors, published=is_published_dict(flat)))
    stored = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return KnownModel(SHIPPED if name is None else name, config, DTYPES.get(stored, torch.float32))


def _folder_of(name: str) -> Path:
    """A folder, or the hub's small files of a model."""
    folder = Path(name).expanduser()
    if not folder.exists() and not HUB_NAME.fullmatch(name):
        sizes = ", ".join(PUBLISHED_SIZES)
        raise BenchmarkError(f"there is no folder {name!r}; expected one, a name on the hub (owner/model), or {sizes}")
    return local_folder(folder if folder.exists() else name, weights=False)


def _stored(folder: Path) -> dict[str, StoredTensor]:
    """What the folder's weight files hold; nothing where only a configuration is there."""
    return stored_tensors(folder) if any(folder.glob("*.safetensors*")) else {}


def _headers(folder: Path, name: str | None) -> dict[str, StoredTensor]:
    """What the weight files hold: those in the folder, or else those on the hub."""
    if name is None or Path(name).expanduser().exists():
        return stored_tensors(folder)
    from huggingface_hub import get_safetensors_metadata

    try:
        found = get_safetensors_metadata(name)
    except (OSError, ValueError) as error:  # huggingface_hub's errors are of these two kinds
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name}: the headers of its weights cannot be read from the hub ({reason})") from error
    tensors = {}
    for file, content in found.files_metadata.items():
        for tensor, entry in content.tensors.items():
            start, stop = entry.data_offsets
            tensors[tensor] = StoredTensor(tensor, folder / file, entry.dtype, tuple(entry.shape), start, stop - start)
    return tensors


__all__ = ["PUBLISHED_SIZES", "KnownModel", "find_model"]
