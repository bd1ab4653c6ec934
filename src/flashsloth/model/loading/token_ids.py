"""The token ids that matter, read off a tokenizer's files.

In: a published folder, with its tokenizer's files or without. Out: a :class:`Vocabulary`. No tokenizer is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from flashsloth.media.limits import cause
from flashsloth.model.chat_template import QUERY_TOKEN
from flashsloth.model.loading.folders import CONFIG
from flashsloth.model.loading.safetensors_files import CheckpointError, read_json

END_OF_ANSWER = "</s>"
PUBLISHED_VOCAB_SIZE = 51200
"""Phi-2's embedding rows; its tokenizer with the published additions uses the first 50297."""


class Vocabulary(NamedTuple):
    """Token ids: one picture's and one query's placeholder, the anchor, and what begins, ends and fills a text."""

    image: int
    query: int
    anchor: int
    bos: int | None
    eos: int | None
    pad: int | None


PUBLISHED = Vocabulary(image=50297, query=50295, anchor=764, bos=None, eos=50296, pad=50256)
"""The published tokenizer's. The anchor is ` .`, with its space; the published code has its number built in."""

PUBLISHED_PROMPT_IDS = {
    "user": [[29904, 25], [1294, 1137, 25]],
    "space": [220],
    "newline": [198],
    "end": PUBLISHED.eos,
    "tag": [],
}
"""How the published tokenizer writes a prompt's fixed words, as `layout.prompt_ids` finds out."""


def prompt_ids_of(vocabulary: Vocabulary, vocab_size: int) -> dict[str, Any] | None:
    """:data:`PUBLISHED_PROMPT_IDS`, where the tokenizer is the published one."""
    is_published = vocab_size == PUBLISHED_VOCAB_SIZE and vocabulary == PUBLISHED
    return PUBLISHED_PROMPT_IDS if is_published else None


def read_vocabulary(folder: Path, flat: dict[str, Any]) -> Vocabulary:
    """The ids of a published folder.

    With a tokenizer beside the weights, its own; `<image>`, which the published tokenizer lacks, gets the first id
    after its last. Without one, those of the published tokenizer if the vocabulary has its size; else the
    configuration's own end and padding, and the last embedding row for `<image>`.
    """
    ids = tokenizer_ids(folder)
    if type(flat.get("vocab_size")) is not int:
        raise CheckpointError(f"{folder / CONFIG}: vocab_size is {flat.get('vocab_size')!r}, expected int")
    if ids is None:
        if flat["vocab_size"] == PUBLISHED_VOCAB_SIZE:
            return PUBLISHED
        return PUBLISHED._replace(
            image=flat["vocab_size"] - 1,
            bos=flat.get("bos_token_id"),
            eos=flat.get("eos_token_id"),
            pad=flat.get("pad_token_id"),
        )
    settings = _optional(folder / "tokenizer_config.json") | _optional(folder / "special_tokens_map.json")
    return Vocabulary(
        image=ids.get("<image>", max(ids.values()) + 1),
        query=ids.get(QUERY_TOKEN, PUBLISHED.query),
        anchor=PUBLISHED.anchor,
        bos=None,  # the published prompt begins with none
        eos=ids.get(_token(settings.get("eos_token"), END_OF_ANSWER), PUBLISHED.eos),
        pad=ids.get(_token(settings.get("pad_token"), "<|endoftext|>"), PUBLISHED.pad),
    )


def tokenizer_ids(folder: Path) -> dict[str, int] | None:
    """Token -> id of the tokenizer in a folder; None if there is none.

    Raises:
        CheckpointError: if its files do not number tokens.
    """
    if (folder / "tokenizer.json").is_file():
        stored = read_json(folder / "tokenizer.json")
        try:
            added = {entry["content"]: entry["id"] for entry in stored.get("added_tokens", ())}
            vocabulary = stored["model"].get("vocab", {})
        except (AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / 'tokenizer.json'} is not a tokenizer's: {cause(error)}") from error
        ids = {**(vocabulary if isinstance(vocabulary, dict) else {}), **added}
    elif (folder / "vocab.json").is_file():
        ids = {**read_json(folder / "vocab.json"), **_optional(folder / "added_tokens.json")}
    else:
        return None
    if not ids or not all(type(number) is int for number in ids.values()):
        raise CheckpointError(f"{folder}: its tokenizer does not number its tokens: copy or download it again")
    return ids


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _token(entry: Any, default: str) -> str:
    """A special token's text: given as text or as an object with `content`."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return default if entry is None else str(entry)
