"""A language model's tokenizer made ready for pictures and queries.

In: where the tokenizer is, and how many rows the embedding has. Out: the tokenizer with `<learnable>`, `<image>` and
what else it lacked, the ids that matter, and how many rows the embedding needs now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.checkpoint.sources import offline_options
from flashsloth.model.join_halves import JoinError, one_line

END_TOKEN, PAD_TOKEN = "</s>", "<pad>"
ANCHORS = (" .", ".")
"""What the anchor is where it is one token; the first is the published model's (764 in Phi-2's vocabulary)."""


@dataclass(frozen=True)
class JoinedTokenizer:
    """A tokenizer and what the model must know of it.

    Attributes:
        tokenizer: a fast tokenizer.
        image_token_id, query_token_id, anchor_token_id, eos_token_id, pad_token_id: ids.
        bos_token: what it puts before every text by itself; empty if nothing.
        rows: embedding rows the model needs.
    """

    tokenizer: Any
    image_token_id: int
    query_token_id: int
    anchor_token_id: int
    eos_token_id: int
    pad_token_id: int
    bos_token: str
    rows: int


def joined_tokenizer(name: str, vocab_size: int) -> JoinedTokenizer:
    """Load a tokenizer and add what it lacks.

    Raises:
        JoinError: if there is none, or it is not a fast one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, padding_side="left", clean_up_tokenization_spaces=False, **offline_options(name)
        )
    except (OSError, ValueError) as error:
        raise JoinError(f"{name} has no tokenizer that can be loaded: {one_line(error)}") from error
    if not tokenizer.is_fast:
        raise JoinError(f"{name}: {type(tokenizer).__name__} is a slow tokenizer, expected one with a tokenizer.json")
    bos_token = _own_beginning(tokenizer)
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": END_TOKEN})
    if tokenizer.pad_token is None:
        spare = tokenizer.unk_token if tokenizer.unk_token != tokenizer.eos_token else None
        tokenizer.add_special_tokens({"pad_token": spare or PAD_TOKEN})
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]}, replace_extra_special_tokens=False
    )
    return JoinedTokenizer(
        tokenizer=tokenizer,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        query_token_id=tokenizer.convert_tokens_to_ids(QUERY_TOKEN),
        anchor_token_id=_anchor(tokenizer, name),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token=bos_token,
        rows=max(vocab_size, max(tokenizer.get_vocab().values()) + 1),
    )


def _own_beginning(tokenizer: Any) -> str:
    """The token it begins every text with, unasked; empty if it does not."""
    ids = tokenizer("a")["input_ids"]
    begins = tokenizer.bos_token_id is not None and ids and ids[0] == tokenizer.bos_token_id
    return str(tokenizer.bos_token) if begins else ""


def _anchor(tokenizer: Any, name: str) -> int:
    for text in ANCHORS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return int(ids[0])
    raise JoinError(f"{name}: the tokenizer has no single token for '.', which anchors the query tokens")


__all__ = ["JoinedTokenizer", "joined_tokenizer"]
