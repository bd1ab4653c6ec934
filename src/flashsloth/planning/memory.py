"""What a pass of a FlashSloth holds for a moment, beside its weights, features, keys and values.

In: a :class:`Cost`, a workload and a precision. Out: an estimate in bytes, of the layer that holds most: layers come
one after the other and each lets its own go, so the depth does not matter.

:class:`LiveMemory` counts instead of estimating: the bytes of all tensors that are alive while a block runs, on any
device; on the meta device, or with fake tensors, what a model of any size would hold.

Legend: N positions of a view in the encoder, T of a prompt, V and D widths of encoder and language model, I inside an
MLP, E query width, P patches, h heads.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from flashsloth.inference.vision import PICTURES_AT_A_TIME
from flashsloth.planning.flops import COLOR_CHANNELS, Cost, Precision, Workload

FLOAT32_BYTES = torch.float32.itemsize
STATES_IN_ATTENTION = 6
"""[N, V] in an encoder's attention: embeddings (held to the end), the layer's input, its norm, query, key, value."""
SCORES_IN_ATTENTION = 2
"""[h, N, N]: scores and their softmax, where attention makes them whole."""
STATES_IN_MLP = 4
"""[N, V] in its MLP: embeddings, the layer's input, the sum with what attention gave, its norm."""
INSIDES_IN_MLP = 2
"""[N, I]: before the activation and after it."""
STATES_IN_DECODER = 4
"""[T, D] in a decoder layer, the same."""
INSIDES_IN_DECODER = 4
"""[T, I]: what an activation holds whose formula is spelt out, as GPT-2's GELU is; a gated MLP holds three."""
NARROWED_FEATURES = 3
"""[P, E] in EmbQ: F narrowed, its norm, keys; and the keys once more, in float32."""


def activation_bytes(cost: Cost, work: Workload, precision: Precision, *, keeps_scores: bool) -> int:
    """The most that is held at once.

    Args:
        cost: of the model.
        work: what is asked.
        precision: of the activations.
        keeps_scores: whether the encoder's attention makes its scores whole, or is fused.
    """
    return max(encode_bytes(cost, work, precision, keeps_scores=keeps_scores), prompt_bytes(cost, work, precision))


def encode_bytes(cost: Cost, work: Workload, precision: Precision, *, keeps_scores: bool) -> int:
    """The pixels and one layer of the encoder, for the pictures that are looked at in one pass."""
    tower, config = cost.encoder, cost.config
    scores = SCORES_IN_ATTENTION * tower.heads * cost.sequence if keeps_scores else 0
    attention = STATES_IN_ATTENTION * tower.width + scores
    mlp = STATES_IN_MLP * tower.width + INSIDES_IN_MLP * tower.inner_width
    pixels = COLOR_CHANNELS * config.vision_config.image_size**2 * FLOAT32_BYTES
    views = min(work.all_pictures, PICTURES_AT_A_TIME) * config.num_views
    return views * (pixels + cost.sequence * max(attention, mlp) * precision.itemsize)


def prompt_bytes(cost: Cost, work: Workload, precision: Precision) -> int:
    """One layer of the language model, or EmbQ, or the logits."""
    tower, (vision, text, query) = cost.language_model, cost.widths
    rows = work.batch * cost.positions(work)
    layer = STATES_IN_DECODER * text + INSIDES_IN_DECODER * tower.inner_width
    patches = work.all_pictures * cost.config.num_views * cost.config.num_patches
    features = (NARROWED_FEATURES * query + vision) * precision.itemsize + query * FLOAT32_BYTES
    logits = work.batch * cost.head.outputs * (precision.itemsize + FLOAT32_BYTES)  # `generate` makes them float32
    return max(rows * layer * precision.itemsize, rows * text * precision.itemsize + patches * features, logits)


class LiveMemory(TorchDispatchMode):
    """`peak` is the most that was alive at once of what was made in the block; weights of `model` do not count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known = WeakIdKeyDictionary()
        for tensor in (*model.parameters(), *model.buffers()):
            self._known[tensor.untyped_storage()] = True

    def leave_out(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Do not count these either, such as gradients that are there already."""
        for tensor in tensors:
            if tensor is not None:
                self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        size = storage.nbytes()
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.held -= size
