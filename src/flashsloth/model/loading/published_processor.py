"""What stands beside the weights: processor, tokenizer and generation settings, in either layout.

In: a published folder, which has a tokenizer's vocabulary and little else that is right, and its configuration. Out:
what the model needs to be spoken to; and, for the way back, the files the published code reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN, chat_template
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG
from flashsloth.model.loading.published_config import VISION_CONFIG
from flashsloth.model.loading.safetensors_files import CheckpointError, read_json
from flashsloth.model.loading.token_ids import END_OF_ANSWER, tokenizer_ids

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from flashsloth.model.processing_flashsloth import FlashSlothProcessor

_PAD = "<|endoftext|>"
_ADDED = "added_tokens.json"
_GENERATION = "generation_config.json"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer."""
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def published_processor(folder: str | Path, config: FlashSlothConfig) -> FlashSlothProcessor:
    """The processor the published files lack: their tokenizer, the published prompt, and the encoder's picture size.

    Args:
        folder: the published files.
        config: their configuration, as :func:`published_config` read it.

    Raises:
        CheckpointError: if there is no tokenizer, or it numbers tokens otherwise than the configuration does.
    """
    from flashsloth.model.image_processing_flashsloth import ASPECTS, FlashSlothImageProcessorPil
    from flashsloth.model.processing_flashsloth import FlashSlothProcessor

    folder = Path(folder)
    aspect = read_json(folder / CONFIG).get("image_aspect_ratio")
    vision: Any = config.vision_config
    side = vision.image_size
    return FlashSlothProcessor(
        FlashSlothImageProcessorPil(
            size={"height": side, "width": side},
            image_grid=config.image_grid,
            image_aspect_ratio=aspect if aspect in ASPECTS else ASPECTS[0],
        ),
        published_tokenizer(folder, config),
        chat_template=chat_template(),
        num_image_tokens=config.num_image_tokens,
        num_query_tokens=config.num_query_tokens,
    )


def published_tokenizer(folder: Path, config: FlashSlothConfig) -> Any:
    """The published tokenizer with `<image>` added, its numbers held against its files and the configuration."""
    from transformers import CodeGenTokenizer

    ids = tokenizer_ids(folder)
    if ids is None:
        raise CheckpointError(f"{folder} has no tokenizer: expected vocab.json and merges.txt, or tokenizer.json")
    text: Any = config.text_config
    special = {} if (folder / "tokenizer_config.json").is_file() else {"eos_token": END_OF_ANSWER, "pad_token": _PAD}
    tokenizer = CodeGenTokenizer.from_pretrained(
        folder,
        clean_up_tokenization_spaces=False,  # an answer's spaces are its own
        padding_side="left",
        model_max_length=text.max_position_embeddings,
        **special,
    )
    added = read_json(folder / _ADDED) if (folder / _ADDED).is_file() else {}
    # An older tokenizer's added tokens, the runs of spaces among them, may be in this file alone.
    tokenizer.add_tokens([token for token, _ in sorted(added.items(), key=lambda item: item[1])])
    tokenizer.add_special_tokens({"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]})
    expected = {**added, QUERY_TOKEN: config.query_token_id, IMAGE_TOKEN: config.image_token_id}
    for token, token_id in expected.items():
        found = tokenizer.convert_tokens_to_ids(token)
        if found != token_id:
            raise CheckpointError(f"{folder}: the tokenizer numbers {token!r} {found}, expected {token_id}")
    return tokenizer


def generation_settings(config: FlashSlothConfig) -> GenerationConfig:
    """How answers end and rows are filled, and that no placeholder is ever generated."""
    from transformers import GenerationConfig

    text: Any = config.text_config
    return GenerationConfig(
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        suppress_tokens=[config.image_token_id, config.query_token_id],
    )


def write_published_companions(source: Path, target: Path, config: FlashSlothConfig) -> None:
    """Write what the published code reads beside the weights: vocabulary, merges, added tokens, generation settings."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    settings = {"eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
    _write_json(target / _GENERATION, {name: value for name, value in settings.items() if value is not None})
    _write_json(target / VISION_CONFIG, vision.to_diff_dict())
    if not has_tokenizer(source):
        return
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.backend_tokenizer.model.save(str(target))
    ranks = read_json(target / "vocab.json")
    added = {token: index for token, index in tokenizer.get_added_vocab().items() if token not in {*ranks, IMAGE_TOKEN}}
    _write_json(target / _ADDED, added)
    special = {"eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token, "unk_token": tokenizer.unk_token}
    special = {name: token for name, token in special.items() if token is not None}
    _write_json(target / "special_tokens_map.json", {**special, "additional_special_tokens": [QUERY_TOKEN]})
    _write_json(target / "tokenizer_config.json", {**special, "tokenizer_class": "CodeGenTokenizer"})


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
