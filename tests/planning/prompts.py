"""Prompts of any size, as the model takes them, without a tokenizer."""

from __future__ import annotations

import torch

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.prompt_layout import PromptLayout
from flashsloth.planning.flops import Workload

ANY_TOKEN = 7


def prompt_inputs(config: FlashSlothConfig, work: Workload) -> dict[str, torch.Tensor]:
    """Ids and position tensors [B, T]: pictures, then a text that is all question, then the queries."""
    row = PromptLayout(config)
    for _ in range(work.pictures):
        row.add_picture(config.num_image_tokens)
    row.add_text([ANY_TOKEN] * work.text_tokens)
    row.add_queries(question_start=0)
    return {name: torch.tensor([values] * work.batch) for name, values in row.lists().items()}
