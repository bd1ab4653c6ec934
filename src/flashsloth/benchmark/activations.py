"""What a pass of a FlashSloth holds for a moment, beside its weights, features, keys and values: an estimate.

In: a :class:`Cost`, a workload and a precision. Out: bytes, of the layer that holds most. Layers come one after the
other and each lets its own go, so the depth does not matter.

Legend: W views a picture, N positions of a view in the encoder, T of a prompt, V and D widths of encoder and language
model, I inside an MLP, E query width, P patches, h heads.
"""

from __future__ import annotations

import torch

from flashsloth.benchmark.cost import COLOR_CHANNELS, Cost, Workload
from flashsloth.benchmark.weights import Precision
from flashsloth.inference.vision import PICTURES_AT_A_TIME

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
    return max(look_bytes(cost, work, precision, keeps_scores=keeps_scores), prompt_bytes(cost, work, precision))


def look_bytes(cost: Cost, work: Workload, precision: Precision, *, keeps_scores: bool) -> int:
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


__all__ = ["activation_bytes", "look_bytes", "prompt_bytes"]
