"""Prompts of any size, as the model takes them, without a tokenizer."""

from __future__ import annotations

import torch

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.planning.flops import Workload

ANY_TOKEN = 7


def prompt_inputs(config: FlashSlothConfig, work: Workload) -> dict[str, torch.Tensor]:
    """Ids and position tensors [B, T]: pictures, then a text that is all question, then the queries."""
    visual, queries = config.num_image_tokens, config.num_query_tokens
    image_index = [picture + 1 for picture in range(work.pictures) for _ in range(visual)]
    rest = work.text_tokens + queries
    rows = {
        "input_ids": [config.image_token_id] * len(image_index)
        + [ANY_TOKEN] * work.text_tokens
        + [config.query_token_id] * queries,
        "image_index": image_index + [0] * rest,
        "question_turn": [0] * len(image_index) + [1] * work.text_tokens + [0] * queries,
        "query_turn": [0] * (len(image_index) + work.text_tokens) + [1] * queries,
    }
    return {name: torch.tensor([row] * work.batch) for name, row in rows.items()}
