"""Connectors other than SAP, which make as few visual tokens in other ways.

In: features of N views, float [N, P, V], P patches of a square grid in row order. Out: float [N, R, V] for R windows of
k x k patches, k the configuration's `pool_size`; of pixel shuffle [N, R, k*k*V].

- `average`: the mean of each window.
- `shuffle`: space to depth, as InternVL has it: a window's patches side by side, and a projector that is so much wider.
- `resampler`: R learned queries that read the whole picture, in blocks of self-attention, cross-attention and MLP, as
  in BLIP-2's Q-Former.
- `none`: all patches: windows of one patch.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

Pooling = Literal["sap", "average", "shuffle", "resampler", "none"]
POOLINGS = get_args(Pooling)
SAP, AVERAGE, SHUFFLE, RESAMPLER, NONE = POOLINGS
RESAMPLER_LAYERS = 2
RESAMPLER_WIDENING = 4
"""Of the resampler's MLP, as in a transformer's."""


class AveragePooling(nn.Module):
    """The mean of each window."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        self.grid, self.size = config.patch_grid, config.pool_size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        maps = features.transpose(1, 2).unflatten(-1, (self.grid, self.grid))  # [N, V, g, g]
        return F.avg_pool2d(maps, self.size).flatten(2).transpose(1, 2)  # [N, R, V]


class PixelShuffle(nn.Module):
    """A window's patches side by side: [N, R, k*k*V]."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        self.grid, self.size = config.patch_grid, config.pool_size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        maps = features.transpose(1, 2).unflatten(-1, (self.grid, self.grid))  # [N, V, g, g]
        return F.pixel_unshuffle(maps, self.size).flatten(2).transpose(1, 2)  # [N, R, k*k*V]


class Resampler(nn.Module):
    """Learned queries that read the picture."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        width, heads = config.vision_config.hidden_size, config.vision_config.num_attention_heads
        self.queries = nn.Parameter(torch.randn(config.num_windows, width) * config.initializer_range)
        layer = nn.TransformerDecoderLayer(
            width, heads, RESAMPLER_WIDENING * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerDecoder(layer, RESAMPLER_LAYERS, norm=nn.LayerNorm(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        queries = self.queries.to(features.dtype).expand(len(features), -1, -1)  # [N, R, V]
        return self.blocks(queries, self.norm(features))


class QueriesThatDoNotLook(nn.Module):
    """In EmbQ's place: the query tokens stay what they are."""

    def forward(self, hidden_states: torch.Tensor, inputs: EmbeddedQueryInputs) -> torch.Tensor:
        return hidden_states


_MODULES: dict[str, type[nn.Module]] = {
    AVERAGE: AveragePooling,
    SHUFFLE: PixelShuffle,
    RESAMPLER: Resampler,
    NONE: AveragePooling,
}


def exchange_pooling(model: FlashSlothForConditionalGeneration, pooling: str) -> None:
    """Put another connector into SAP's place, freshly drawn."""
    if pooling == SAP:
        return
    config: FlashSlothConfig = model.config
    model.model.set_submodule("spatial_attention_pooling", _MODULES[pooling](config))
    if pooling == SHUFFLE:
        old = model.model.projector.linear_1
        wider = nn.Linear(config.pool_size**2 * old.in_features, old.out_features)
        nn.init.normal_(wider.weight, std=config.initializer_range)
        nn.init.zeros_(wider.bias)
        model.model.projector.linear_1 = wider


def remove_embedded_query(model: FlashSlothForConditionalGeneration) -> None:
    """Leave the query tokens in the prompt, and let them see no more than other tokens do."""
    model.model.set_submodule("embedded_query", QueriesThatDoNotLook())


__all__ = ["NONE", "POOLINGS", "SAP", "Pooling", "exchange_pooling", "remove_embedded_query"]
