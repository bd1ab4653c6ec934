"""Checkpoints to measure speed with (`tools/compare_speed.py`, `bench serve`): answers never end before their length.

In: "nano", "true-size" or "hd", and an empty folder. Out: a checkpoint there.

Nano is the one that ships with the package. The others have the published sizes and random weights, stored in bfloat16,
since speed does not depend on what weights say; they speak Nano's words, and further made-up ones for the rest of their
vocabulary. In all of them the end token is among those that are never chosen: an answer has as many tokens as it may.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

NANO, TRUE_SIZE, HD = "nano", "true-size", "hd"
KINDS = (NANO, TRUE_SIZE, HD)
SEED = 0
TOKENIZER, PROCESSOR, CONFIG, GENERATION = (
    "tokenizer.json",
    "processor_config.json",
    "config.json",
    "generation_config.json",
)
SPACE = "Ġ"
"""How the tokenizer's vocabulary writes the space before a word."""


def make_checkpoint(kind: str, folder: Path) -> None:
    """Write a checkpoint of one of `KINDS`."""
    from flashsloth.model.loading.folders import shipped_folder

    shutil.copytree(shipped_folder(), folder, dirs_exist_ok=True)
    if kind != NANO:
        _write_published_size(folder, image_grid=2 if kind == HD else 1)
    _never_end(folder)


def _write_published_size(folder: Path, image_grid: int) -> None:
    """Put a model of the published size in the place of Nano, whose ids, words and template it takes."""
    import torch
    from transformers.utils import logging

    from flashsloth.benchmark.models.random_weights import make_random
    from flashsloth.model.configuration_flashsloth import PHI2_TEXT_CONFIG, FlashSlothConfig
    from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

    logging.disable_progress_bar()
    nano = _read(folder / CONFIG)
    ids = {name: nano[name] for name in ("image_token_id", "query_token_id", "anchor_token_id")}
    text = {**PHI2_TEXT_CONFIG, **{name: nano["text_config"][name] for name in ("eos_token_id", "pad_token_id")}}
    config = FlashSlothConfig(image_grid=image_grid, text_config=text, prompt_ids=nano["prompt_ids"], **ids)
    model = make_random(
        lambda: FlashSlothForConditionalGeneration._from_config(config, dtype=torch.bfloat16),
        torch.device("cpu"),
        SEED,
    )
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder)
    _fill_vocabulary(folder / TOKENIZER, config.text_config.vocab_size)
    side = config.vision_config.image_size
    settings = _read(folder / PROCESSOR)
    settings["image_processor"].update(size={"height": side, "width": side}, image_grid=image_grid)
    settings.update(num_image_tokens=config.num_image_tokens, num_query_tokens=config.num_query_tokens)
    _write(folder / PROCESSOR, settings)


def _fill_vocabulary(file: Path, size: int) -> None:
    """Every id is a word: text comes with each token."""
    settings = _read(file)
    vocabulary = settings["model"]["vocab"]
    vocabulary.update({f"{SPACE}word{number}": number for number in range(len(vocabulary), size)})
    _write(file, settings)


def _never_end(folder: Path) -> None:
    """Let the end, the padding and the placeholders never be chosen."""
    config, settings = _read(folder / CONFIG), _read(folder / GENERATION)
    text = config["text_config"]
    never = (text["eos_token_id"], text["pad_token_id"], config["image_token_id"], config["query_token_id"])
    settings["suppress_tokens"] = sorted({*never, *(settings.get("suppress_tokens") or ())})
    _write(folder / GENERATION, settings)


def _read(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return settings


def _write(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
