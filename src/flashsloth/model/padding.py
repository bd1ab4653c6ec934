"""Rows of ids and marks: cut to a length, and padded to one.

In: for each prompt its `input_ids` and everything aligned with them, lists of one length. Out: int64 arrays [B, T], or
the lists where no padding is wanted.

Legend: B batch, T longest row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flashsloth.model.loss import IGNORED_LABEL
from flashsloth.model.processor_options import TextOptions
from flashsloth.model.prompt_layout import POSITION_TENSORS

Row = dict[str, list[int]]


def cut_rows(rows: list[Row], settings: TextOptions, side: str) -> None:
    """Cut rows that are too long, in place, at the "right" or "left" `side`.

    Raises:
        ValueError: if a row is too long and may not be cut, or what would be cut holds a picture, a question or query
            tokens: the model would then be asked something else.
    """
    limit = settings.max_length
    if limit is None:
        return
    for row in rows:
        length = len(row["input_ids"])
        if length <= limit:
            continue
        cut, kept = slice(limit, length), slice(0, limit)
        if side == "left":
            cut, kept = slice(0, length - limit), slice(length - limit, length)
        if not settings.truncation:
            raise ValueError(f"the longest prompt has {length} tokens, max_length is {limit}: shorten the text")
        if any(any(row[name][cut]) for name in POSITION_TENSORS):
            raise ValueError(
                f"truncation to max_length {limit} would cut a picture, a question or query tokens of a prompt of "
                f"{length} tokens: shorten the text, or raise max_length"
            )
        row.update({name: values[kept] for name, values in row.items()})


def pad_rows(rows: list[Row], settings: TextOptions, tokenizer: Any) -> dict[str, Any]:
    """Rows of one length, on the side asked for; lists as they are where no padding is wanted.

    Raises:
        ValueError: if rows of different lengths should become a tensor without padding, or no length was named.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    data: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    padding = settings.padding or ("longest" if len(rows) > 1 else "do_not_pad")
    if padding == "do_not_pad":
        if settings.return_tensors and any(len(row["input_ids"]) != longest for row in rows):
            raise ValueError("rows of different lengths make no tensor without padding: leave padding=False out")
        return data
    if padding == "max_length":
        if settings.max_length is None:
            raise ValueError("padding='max_length' needs max_length")
        longest = settings.max_length
    if settings.pad_to_multiple_of:
        longest = -(-longest // settings.pad_to_multiple_of) * settings.pad_to_multiple_of
    side = settings.padding_side or tokenizer.padding_side
    pad_id = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    fillers = {"input_ids": pad_id, "labels": IGNORED_LABEL}
    return {name: np.stack([_padded(r, longest, fillers.get(name, 0), side) for r in data[name]]) for name in data}


def _padded(values: list[int], length: int, filler: int, side: str) -> np.ndarray:
    row = np.full(length, filler, dtype=np.int64)
    if side == "right":
        row[: len(values)] = values
    else:
        row[length - len(values) :] = values
    return row
