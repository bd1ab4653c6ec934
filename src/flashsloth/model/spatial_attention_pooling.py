"""From patches to visual tokens: Spatial Attention Pooling (SAP), and the projector to the language model's width.

In: the encoder's features of one view, a square grid of patches in row order.
Out: one token for each window of `pool_size` x `pool_size` patches, windows in row order: the patches' sum, weighted by
a softmax over the window of what one small scorer says of each patch (FlashSloth, section 3.2); then two linear layers
with an activation between them, as in LLaVA-1.5.

Legend: N views, P patches (g x g), R windows (r x r), k the window's side, V vision width, D language-model width.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from flashsloth.model.configuration_flashsloth import FlashSlothConfig


class SpatialAttentionPooling(nn.Module):
    """Pools every window by its own saliency. The published code's loop over windows is one reshape here."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.pool_size = config.pool_size
        self.patch_grid = config.patch_grid
        self.score_in = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.sap_dropout)
        self.score_out = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool every window.

        Args:
            features: float [N, P, V].

        Returns:
            float [N, R, V].
        """
        windows = self._windows(features)  # [N, R, k*k, V]
        weights = self._window_weights(features).to(features.dtype)  # [N, R, k*k]
        return (weights.unsqueeze(-2) @ windows).squeeze(-2)  # [N, R, V]

    def saliency(self, features: torch.Tensor) -> torch.Tensor:
        """How much of its window's token each patch gives: float32 [N, g, g], windows sum to one. For looking at."""
        side = self.patch_grid // self.pool_size
        weights = self._window_weights(features)
        grid = weights.view(-1, side, side, self.pool_size, self.pool_size)  # [N, r, r, k, k]
        return grid.transpose(2, 3).reshape(-1, self.patch_grid, self.patch_grid)  # [N, g, g]

    def _window_weights(self, features: torch.Tensor) -> torch.Tensor:
        """Softmax of the scores inside each window: float32 [N, R, k*k]."""
        scores = self.score_out(self.dropout(torch.relu(self.score_in(features))))  # [N, P, 1]
        return self._windows(scores).squeeze(-1).float().softmax(dim=-1)

    def _windows(self, grid: torch.Tensor) -> torch.Tensor:
        """Cut [N, P, C] in row order into windows in row order: [N, R, k*k, C]."""
        side, size = self.patch_grid // self.pool_size, self.pool_size
        cut = grid.view(grid.shape[0], side, size, side, size, grid.shape[-1])  # [N, r, k, r, k, C]
        return cut.transpose(2, 3).reshape(grid.shape[0], side * side, size * size, grid.shape[-1])


class FlashSlothProjector(nn.Module):
    """Linear, GELU, Linear: vision width [.., V] to language-model width [.., D]."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        text_size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, text_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(text_size, text_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(features)))
