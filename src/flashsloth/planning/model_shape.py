"""From what a user calls a model to its configuration and its shape, with nothing loaded.

In: a published size's name, a folder, a name on the hub, or nothing for the small model inside the package. Out: a
:class:`KnownModel`. Of a published checkpoint, whose configuration is read off its tensors' shapes, only the files'
headers are read, on the hub too.

Of a model of transformers on the meta device, where it has shapes and takes no memory, so that any family can be read:
a :class:`Tower`, which is what decides its work: how large its matrices are, and what its attention spans.

Legend: N positions of a pass, S positions that they attend to, h heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from flashsloth.checkpoint.adapter import is_adapter, read_adapter
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.model.configuration_flashsloth import HD_GRID, FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG, HUB_NAME, SHIPPED, local_folder, shipped_folder
from flashsloth.model.loading.preflight import check_sizes, config_of
from flashsloth.model.loading.published_config import is_published_dict, published_config
from flashsloth.model.loading.safetensors_files import CheckpointError, StoredTensor, read_json, stored_tensors
from flashsloth.model.loading.weight_names import by_our_names

PUBLISHED_SIZES: dict[str, dict[str, Any]] = {"flashsloth": {}, "flashsloth-hd": {"image_grid": HD_GRID}}
"""Name of a published size -> where its configuration is not the default one."""
PUBLISHED_DTYPE = torch.float16
FLOPS_PER_WEIGHT = 2
"""A multiplication and an addition for each number of a matrix, for each position."""
PRODUCTS_OF_ATTENTION = 2
"""Queries with keys, weights with values."""
KEYS_AND_VALUES = 2
ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
"""Kinds of layers (transformers' `layer_types`) that attend to keys and values they keep."""
_POOLER = "pooler"
"""What some encoders do with one position, and nobody here uses."""
_EXPERTS_DIMENSIONS = 3


class Matrix(NamedTuple):
    """A weight that every position is multiplied by; `is_linear` if it is torch's own linear layer."""

    inputs: int
    outputs: int
    is_linear: bool = True

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Tower:
    """A stack of transformer layers.

    Attributes:
        parameters: numbers in all.
        looked_up: numbers in embedding tables, of which a pass reads a few rows.
        matrices: what every position is multiplied by.
        patch_weights: numbers of the convolution that makes patches (an encoder's).
        layers, heads, head_size: the attention's shape.
        key_values: numbers of keys and values that all layers keep for one position.
        width: of the hidden states.
    """

    parameters: int
    looked_up: int
    matrices: tuple[Matrix, ...]
    patch_weights: int
    layers: int
    heads: int
    head_size: int
    key_values: int
    width: int

    @property
    def matrix_weights(self) -> int:
        """Numbers in matrices."""
        return sum(matrix.size for matrix in self.matrices)

    @property
    def inner_width(self) -> int:
        """Outputs of the widest matrix: the MLP's inside."""
        return max(matrix.outputs for matrix in self.matrices)

    def flops(self, positions: int, attended: int) -> int:
        """FLOPs of a pass of N `positions`, each attending to S positions; masked ones are computed as well."""
        linear = FLOPS_PER_WEIGHT * self.matrix_weights * positions
        pairs = self.layers * self.heads * positions * attended
        return linear + PRODUCTS_OF_ATTENTION * FLOPS_PER_WEIGHT * self.head_size * pairs


def read_tower(model: nn.Module, config: Any) -> Tower:
    """Read a tower off a model.

    Args:
        model: an encoder or a decoder of transformers without its head; on the meta device will do.
        config: its configuration.

    Raises:
        BenchmarkError: for layers whose work these numbers do not tell.
    """
    _check_known(model, config)
    modules = [module for name, module in model.named_modules() if name.partition(".")[0] != _POOLER]
    tables = [module.weight.numel() for module in modules if isinstance(module, nn.Embedding)]
    patches = [module.weight.numel() for module in modules if isinstance(module, nn.Conv2d)]
    return Tower(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        looked_up=sum(tables),
        matrices=tuple(matrix for module in modules if (matrix := _matrix(module)) is not None),
        patch_weights=sum(patches),
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        head_size=_head_size(config),
        key_values=key_value_numbers(config),
        width=config.hidden_size,
    )


def key_value_numbers(config: Any) -> int:
    """Numbers of keys and values that a language model keeps for one position, in the layers that keep any."""
    kinds = getattr(config, "layer_types", None)
    layers = config.num_hidden_layers if kinds is None else sum(kind in ATTENTION_LAYERS for kind in kinds)
    heads = _given(config, "num_key_value_heads", config.num_attention_heads)
    return KEYS_AND_VALUES * layers * heads * _head_size(config)


def _head_size(config: Any) -> int:
    return _given(config, "head_dim", config.hidden_size // config.num_attention_heads)


def _matrix(module: nn.Module) -> Matrix | None:
    if isinstance(module, nn.Linear):
        return Matrix(module.in_features, module.out_features)
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return Matrix(inputs, outputs, is_linear=False)
    return None


def _given(config: Any, name: str, default: int) -> int:
    """A field that some families lack and others leave empty."""
    value = getattr(config, name, None)
    return default if value is None else value


def _check_known(model: nn.Module, config: Any) -> None:
    """Refuse experts, compressed keys and layers without attention, rather than count them wrong."""
    others = sorted(set(getattr(config, "layer_types", None) or ()) - set(ATTENTION_LAYERS))
    if others:
        reason = f"layers of type {', '.join(others)}"
    elif getattr(config, "kv_lora_rank", None):
        reason = "compressed keys and values"
    elif any(p.ndim == _EXPERTS_DIMENSIONS and p.shape[0] > 1 for p in model.parameters()):
        reason = "experts, of which each token meets only some"
    else:
        return
    raise BenchmarkError(
        f"a model of type {config.model_type!r} has {reason}, whose work is not counted here: "
        f"choose one with plain attention and MLPs, or measure it with `flashsloth bench`"
    )


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
