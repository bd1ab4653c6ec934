"""A tiny FlashSloth whose answers have text, saved as a checkpoint: for tests that read answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import PreTrainedTokenizerFast

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

NEVER = 1000.0
"""Taken from the scores of tokens that are no whole text."""


def make_talkative(model: FlashSlothForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let answers have text, and let it hang on everything that was asked: deeper layers, wider scores, only words."""
    vocabulary = range(model.config.text_config.vocab_size)
    words = [i for i in vocabulary if i not in tokenizer.all_special_ids and tokenizer.decode([i]).strip("\ufffd")]
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter.mul_(2)
        model.lm_head.weight.normal_()
        model.lm_head.bias.fill_(-NEVER)
        model.lm_head.bias[words] = 0


def save_talkative(folder: Path, **changes: Any) -> Path:
    """Write a talkative model, of the tiny sizes with `changes`, and its processor."""
    return tiny.save(folder, make_talkative, **changes)
