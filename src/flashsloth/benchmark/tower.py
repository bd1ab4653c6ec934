"""What of a transformer decides its work: how large its matrices are, and what its attention spans.

In: a model of transformers on the meta device, where it has shapes and takes no memory, so that any family can be read;
and its configuration. Out: a :class:`Tower` that counts parameters and floating-point operations (FLOPs).

Legend: N positions of a pass, S positions that they attend to, h heads, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from flashsloth.benchmark.errors import BenchmarkError

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
        layers, heads, key_value_heads, head_size: the attention's shape.
        width: of the hidden states.
    """

    parameters: int
    looked_up: int
    matrices: tuple[Matrix, ...]
    patch_weights: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    width: int

    @property
    def matrix_weights(self) -> int:
        """Numbers in matrices."""
        return sum(matrix.size for matrix in self.matrices)

    @property
    def key_values(self) -> int:
        """Numbers of keys and values that all layers keep for one position."""
        return KEYS_AND_VALUES * self.layers * self.key_value_heads * self.head_size

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
    heads = config.num_attention_heads
    return Tower(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        looked_up=sum(tables),
        matrices=tuple(matrix for module in modules if (matrix := _matrix(module)) is not None),
        patch_weights=sum(patches),
        layers=config.num_hidden_layers,
        heads=heads,
        key_value_heads=_given(config, "num_key_value_heads", heads),
        head_size=_given(config, "head_dim", config.hidden_size // heads),
        width=config.hidden_size,
    )


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


__all__ = ["FLOPS_PER_WEIGHT", "Matrix", "Tower", "read_tower"]
