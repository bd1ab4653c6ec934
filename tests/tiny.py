"""A FlashSloth of some hundred thousand random parameters, with a tokenizer and a processor to match.

Legend: the tiny encoder has 6x6 patches, so 4 visual tokens a view; 3 query tokens a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN, chat_template
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.model.prompt_layout import prompt_ids

TinyModelMaker = Callable[..., FlashSlothForConditionalGeneration]

SYSTEM_PROMPT = "A chat."
END, PAD = "</s>", "<|endoftext|>"
IMAGE_SIZE, PATCH_SIZE = 24, 4
VOCABULARY = 384
CORPUS = [
    "USER: What is this? ASSISTANT: a red dog and a blue chair",
    "USER: Where is it? ASSISTANT: it is on the left of the table",
]

VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}
TEXT = {
    "model_type": "phi",
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE as Phi-2's, of few merges; every text can be written with it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, special=True, normalized=False) for token in (PAD, QUERY_TOKEN, END, IMAGE_TOKEN)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(specials), initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(specials)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        additional_special_tokens=[QUERY_TOKEN, IMAGE_TOKEN],
        padding_side="left",
    )


def make_config(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> FlashSlothConfig:
    """The tiny sizes, with `changes` on top."""
    fields: dict[str, Any] = {
        "vision_config": dict(VISION),
        "text_config": dict(TEXT),
        "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        "query_token_id": tokenizer.convert_tokens_to_ids(QUERY_TOKEN),
        "anchor_token_id": tokenizer.convert_tokens_to_ids("."),
        "num_query_tokens": 3,
        "query_size": 16,
        "embq_layer": 2,
        "embq_num_heads": 4,
    }
    config = FlashSlothConfig(**{**fields, **changes})
    if "prompt_ids" not in changes:
        config.prompt_ids = prompt_ids(make_processor(tokenizer, config))
    return config


def make_model(config: FlashSlothConfig, *, attention: str = "eager") -> FlashSlothForConditionalGeneration:
    """Random weights, large enough to tell two pictures apart; EmbQ's way back drawn as well, not zero."""
    torch.manual_seed(0)
    model = FlashSlothForConditionalGeneration._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
        model.model.embedded_query.up.weight.normal_(std=1.0)
        model.model.embedded_query.up.bias.normal_(std=0.2)
    model.generation_config.eos_token_id = None  # random weights would end where they like
    model.generation_config.pad_token_id = 0
    return model


def make_processor(tokenizer: PreTrainedTokenizerFast, config: FlashSlothConfig) -> FlashSlothProcessor:
    side = config.vision_config.image_size
    return FlashSlothProcessor(
        FlashSlothImageProcessorPil(size={"height": side, "width": side}, image_grid=config.image_grid),
        tokenizer,
        chat_template=chat_template(SYSTEM_PROMPT),
        num_image_tokens=config.num_image_tokens,
        num_query_tokens=config.num_query_tokens,
    )


def save(
    folder: Path,
    prepare: Callable[[FlashSlothForConditionalGeneration, PreTrainedTokenizerFast], object] | None = None,
    attention: str = "sdpa",
    **changes: Any,
) -> Path:
    """Write a tiny model, as `prepare` leaves it, and its processor."""
    tokenizer = make_tokenizer()
    config = make_config(tokenizer, **changes)
    model = make_model(config, attention=attention)
    if prepare is not None:
        prepare(model, tokenizer)
    model.save_pretrained(folder)
    make_processor(tokenizer, config).save_pretrained(folder)
    return folder


def picture(seed: int = 0, width: int = 40, height: int = 30) -> Image.Image:
    """Coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(text: str, *pictures: Image.Image) -> dict[str, Any]:
    """A user's message: pictures, then words."""
    images = [{"type": "image", "image": image} for image in pictures]
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def encode(processor: FlashSlothProcessor, conversation: list[Any], **options: Any) -> dict[str, torch.Tensor]:
    """Model inputs of one conversation or a list of them; a question at the end is followed by the answer's opening."""
    last = conversation[-1] if isinstance(conversation[0], dict) else conversation[0][-1]
    options.setdefault("add_generation_prompt", last["role"] == "user")
    encoded = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", **options
    )
    return dict(encoded)
