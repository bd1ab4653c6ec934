"""The projector: SAP's tokens in the language model's width.

In: float [.., V]. Out: float [.., D]. Two linear layers with an activation between them, as in LLaVA-1.5.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from flashsloth.model.configuration_flashsloth import FlashSlothConfig


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
