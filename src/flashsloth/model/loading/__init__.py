"""Checkpoints, read and loaded: the published layout and ours.

folders             a folder's path or a hub's name -> a folder
safetensors_files   weights by their headers
non_finite          NaN and infinity, in weights and in passes
published_config    the published layout's flat configuration, to ours and back; weight_names: its tensors' names
published_processor processor, tokenizer and generation settings, which published folders lack
token_ids           the token ids that matter
preflight           what is wrong with the files, before memory is taken
loading             strictly: every tensor from a file, every tensor of the files used
"""

from flashsloth.model.loading.loading import load_config, load_model, load_processor
from flashsloth.model.loading.published_config import is_published, published_config
from flashsloth.model.loading.published_processor import published_processor
from flashsloth.model.loading.safetensors_files import CheckpointError
from flashsloth.model.loading.weight_names import NAMES, by_our_names, to_ours, to_published

__all__ = [
    "NAMES",
    "CheckpointError",
    "by_our_names",
    "is_published",
    "load_config",
    "load_model",
    "load_processor",
    "published_config",
    "published_processor",
    "to_ours",
    "to_published",
]
