"""Parameters that a batch does not use, touched all the same.

In: a model in training and what its batch brings. Out: embeddings with zero times every trained part that the batch
leaves idle (no pictures, or no turns). Sharded training (FSDP, ZeRO-3) hangs unless every rank uses every parameter in
every step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.outputs import FlashSlothImageFeatures


def touch_idle_parameters(
    model: Any,
    inputs_embeds: torch.Tensor,
    image: FlashSlothImageFeatures | None,
    embq_inputs: EmbeddedQueryInputs | None,
) -> torch.Tensor:
    """Add nothing to float [B, T, D], through every trained part of a FlashSlothModel that the batch does not use."""
    idle: list[torch.Tensor] = []
    parts = (model.vision_tower, model.spatial_attention_pooling, model.projector)
    if image is None and any(_trains(part) for part in parts):
        size = model.config.vision_config.image_size
        image = model.get_image_features(inputs_embeds.new_zeros(1, model.config.num_views, 3, size, size))
        idle.append(image.pooler_output)
    if embq_inputs is None and (_trains(model.embedded_query) or _trains(model.query_tokens)):
        idle.append(_queries_looking_at_themselves(model, inputs_embeds, image))
    for output in idle:
        inputs_embeds = inputs_embeds + 0.0 * output.sum().to(inputs_embeds.dtype)
    return inputs_embeds


def _queries_looking_at_themselves(
    model: Any, inputs_embeds: torch.Tensor, image: FlashSlothImageFeatures | None
) -> torch.Tensor:
    """EmbQ's answer to its own query tokens: float [1, Q, D]."""
    queries = model.query_tokens(inputs_embeds.new_zeros(inputs_embeds.shape[-1]))[None]  # [1, Q, D]
    if image is None:
        features = queries.new_zeros(1, 1, model.config.vision_config.hidden_size)
    else:
        features = image.last_hidden_state[:1]
    everything = torch.ones(queries.shape[:2], dtype=torch.bool, device=queries.device)
    place = torch.arange(queries.shape[1], device=queries.device)[None]
    inputs = EmbeddedQueryInputs(place, place, everything, features, torch.zeros_like(place[0, :1]))
    return model.embedded_query.look(queries, queries, inputs)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


__all__ = ["touch_idle_parameters"]
