"""Checkpoints: the published layout and ours, read, loaded and turned into each other.

names          what the two layouts call the same tensor: one table, both ways
weight_files   safetensors files by their headers
sources        a folder's path or a hub's name -> a folder
vocabulary     the token ids that matter
published      the published layout's flat configuration -> ours
flat_config    ours -> the flat one
companions     processor, tokenizer and generation settings, which published folders lack
preflight      what is wrong with the files, before memory is taken
loading        strictly: every tensor from a file, every tensor of the files used
conversion     one layout to the other, bit for bit
"""

from flashsloth.checkpoint.convert import convert
from flashsloth.model.loading.companions import published_processor
from flashsloth.model.loading.loading import load_config, load_model, load_processor
from flashsloth.model.loading.published_config import (
    NAMES,
    by_our_names,
    is_published,
    published_config,
    to_ours,
    to_published,
)
from flashsloth.model.loading.safetensors_files import CheckpointError

__all__ = [
    "NAMES",
    "CheckpointError",
    "by_our_names",
    "convert",
    "is_published",
    "load_config",
    "load_model",
    "load_processor",
    "published_config",
    "published_processor",
    "to_ours",
    "to_published",
]
