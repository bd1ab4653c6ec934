"""Where a run starts: a checkpoint, or a model made from nothing with a tokenizer of its own.

In: a recipe's `model`. Out: a model and its processor.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from flashsloth.checkpoint.adapter import is_adapter, read_adapter
from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN, chat_template
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.model.prompt_layout import prompt_ids
from flashsloth.training.recipe import ModelSource, RecipeError
from flashsloth.training.recipe_fields import check_model_fields

logger = logging.getLogger(__name__)

END_TOKEN, PAD_TOKEN = "</s>", "<pad>"
ANCHOR = "."
TEMPLATE_WORDS = ("USER", ":", " ASSISTANT:")
"""Pieces of the prompt that deserve a token of their own."""
WORD_PATTERN = r" ASSISTANT:| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"
"""How text falls into words: a word, a digit or a sign, with the space before it."""
SPACED_SIGNS = tuple(" " + sign for sign in "0123456789(\"'")
"""Digits and signs that often follow a space."""


def start_model(
    source: ModelSource, attention: str, *, trains_adapter_on: bool = False
) -> tuple[FlashSlothForConditionalGeneration, FlashSlothProcessor]:
    """Load or make the model that a recipe starts from, in float32 (mixed precision keeps float32 weights).

    Args:
        source: the recipe's `model`.
        attention: transformers' name of the implementation.
        trains_adapter_on: of an adapter, give its base, and not the two folded into one: its stage puts it on again.
    """
    if source.path is not None:
        from flashsloth.inference.load import load
        from flashsloth.model.loading.folders import find_folder

        path: str | Path = source.path
        adapter = find_folder(path) if trains_adapter_on else None
        if adapter is not None and is_adapter(adapter):
            path = read_adapter(adapter).base_folder()
        else:
            adapter = None
        door = load(path, device="cpu", dtype="float32", optimize=False)
        door.model.set_attn_implementation(attention)
        return door.model, door.processor if adapter is None else FlashSlothProcessor.from_pretrained(adapter)
    return _from_nothing(source, attention)


def world_tokenizer() -> Any:
    """A tokenizer that gives every word of the drawn world one token and spells everything else, byte by byte.

    Byte-level BPE without merges: a word that stands in the vocabulary is one token, any other text falls into bytes,
    so nothing is unknown, and words that are read off a picture are spelled letter by letter.
    """
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    from flashsloth.world import closed_vocabulary

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [*TEMPLATE_WORDS, *SPACED_SIGNS, *(form for word in closed_vocabulary() for form in (word, " " + word))]
    words = [byte_level.pre_tokenize_str(piece)[0][0] for piece in dict.fromkeys(pieces)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD_TOKEN, END_TOKEN, IMAGE_TOKEN, QUERY_TOKEN]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*special, *alphabet, *words]))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=[IMAGE_TOKEN, QUERY_TOKEN],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _from_nothing(
    source: ModelSource, attention: str
) -> tuple[FlashSlothForConditionalGeneration, FlashSlothProcessor]:
    """A freshly drawn model of the recipe's sizes, with the tokenizer's vocabulary."""
    assert source.config is not None
    check_model_fields(source.config)
    if source.tokenizer == "world":
        tokenizer = world_tokenizer()
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source.tokenizer)
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"model.tokenizer: found {source.tokenizer!r}, which cannot be loaded, expected world, or the "
                f"folder or name of a tokenizer: {' '.join(str(error).split())}"
            ) from error
        tokenizer.add_special_tokens({"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]})
    fields = json.loads(json.dumps(source.config))
    text = fields.setdefault("text_config", {})
    text.update(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    fields.update(
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        query_token_id=tokenizer.convert_tokens_to_ids(QUERY_TOKEN),
        anchor_token_id=tokenizer(ANCHOR, add_special_tokens=False)["input_ids"][0],
    )
    try:
        config = FlashSlothConfig(**fields)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model.config: {error}") from error
    model = FlashSlothForConditionalGeneration._from_config(config, attn_implementation=attention)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    side = config.vision_config.image_size
    processor = FlashSlothProcessor(
        FlashSlothImageProcessorPil(
            size={"height": side, "width": side},
            image_grid=config.image_grid,
            image_aspect_ratio=source.image_aspect_ratio,
        ),
        tokenizer,
        chat_template=chat_template(source.system_prompt),
        num_image_tokens=config.num_image_tokens,
        num_query_tokens=config.num_query_tokens,
    )
    model.config.prompt_ids = prompt_ids(processor)
    logger.info("made a model of %.2f M parameters", model.num_parameters() / 1e6)
    return model, processor
