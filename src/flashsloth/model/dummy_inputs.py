"""Dummy inputs for parts of the model that a batch does not need, but that other devices may.

In: a model and what its batch brings. Out: inputs that change nothing: a picture that stands nowhere, queries that add
zero. Without them training on several devices hangs or fails: gradients are averaged over all devices, and a part whose
weights are sharded (FSDP2, ZeRO-3) runs on every device or on none, in the same order. So a dummy takes the way of a
real picture or a real turn, at the same place.

Legend: B batch, T positions, W views a picture, P patches a view, Q query tokens, V and D widths of encoder and
language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.outputs import FlashSlothImageFeatures

_SHARD_MARKS = ("device_mesh", "ds_id")
"""What a sharded parameter has and no other: FSDP2's (torch's DTensor), DeepSpeed's ZeRO-3."""


def dummy_picture(model: Any, inputs_embeds: torch.Tensor) -> FlashSlothImageFeatures | None:
    """What a FlashSlothModel makes of a picture that is all zeros, for a batch without one; None where none is needed.

    A frozen encoder that is whole on this device is not run.
    """
    learners = (model.spatial_attention_pooling, model.projector)
    runs_encoder = must_run(model, model.vision_tower)
    if not runs_encoder and not any(must_run(model, part) for part in learners):
        return None
    config = model.config
    if runs_encoder:
        size = config.vision_config.image_size
        return model.get_image_features(inputs_embeds.new_zeros(1, config.num_views, 3, size, size))
    patches, width = config.num_views * config.num_patches, config.vision_config.hidden_size
    return model.pool_features(_zeros_for(model.projector, inputs_embeds, 1, patches, width))


def depend_on(inputs_embeds: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Float [B, T, D] as it is, but made to depend on `output`."""
    return inputs_embeds + 0.0 * output.sum().to(inputs_embeds.dtype)


def dummy_queries(
    model: Any, inputs_embeds: torch.Tensor, image: FlashSlothImageFeatures | None
) -> EmbeddedQueryInputs | None:
    """A turn for EmbQ that may look at nothing, so that its states stay what they are; None where none is needed.

    It stands on the batch's first positions; the features that it may not look at are the batch's own, if there are.
    """
    if not must_run(model, model.embedded_query):
        return None
    device, config = inputs_embeds.device, model.config
    place = torch.arange(min(config.num_query_tokens, inputs_embeds.shape[1]), device=device)[None]  # [1, Q]
    if image is None:
        features = _zeros_for(model.embedded_query, inputs_embeds, 1, 1, config.vision_config.hidden_size)
    else:
        features = image.last_hidden_state[:1]  # [1, W*P, V]
    return EmbeddedQueryInputs(
        query_index=place,
        question_index=place,
        question_mask=torch.ones_like(place, dtype=torch.bool),
        features=features,
        feature_row=place[0, :1] * 0,
        feature_mask=torch.zeros(features.shape[:2], dtype=torch.bool, device=device),
    )


def _zeros_for(part: nn.Module, inputs_embeds: torch.Tensor, *shape: int) -> torch.Tensor:
    """Zeros as a part takes them, where the batch is."""
    return inputs_embeds.new_zeros(*shape, dtype=next(part.parameters()).dtype)


def must_run(model: Any, part: nn.Module) -> bool:
    """Whether a part has parameters that learn, or that other devices wait for."""
    if not (model.training or (torch.distributed.is_available() and torch.distributed.is_initialized())):
        return False  # nothing is sharded without others: an answer's steps do not look at every parameter
    return any(
        (model.training and parameter.requires_grad) or any(hasattr(parameter, mark) for mark in _SHARD_MARKS)
        for parameter in part.parameters()
    )
