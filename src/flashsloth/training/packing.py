"""Many questions about one picture in one row, each as if it were alone.

In: rows that begin alike (the prompt and its picture) and go on differently (a question and its answer each).
Out: one row, the beginning written once, with an attention mask and positions that keep the questions apart. The loss
and its gradients are those of the separate rows, for a fraction of the work; and no question can be answered from
another's answer, as it could in one conversation.

    row            p  p  p  a  a  a  b  b        p shared, a and b two questions
    segment        0  0  0  1  1  1  2  2
    position       0  1  2  3  4  5  3  4

    who sees whom  p a b
               p   x . .        (and always only what stands before)
               a   x x .
               b   x . x

Legend: B rows, T positions of the longest.
"""

from __future__ import annotations

from typing import Any

import torch

SHARED = 0
"""The segment of the shared beginning."""
PADDING_SEGMENT = -1
LENGTH_STEP = 16
"""Batches are padded to a multiple of this: on a processor each new length costs kernel memory that is never freed."""


def pack_rows(rows: list[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Join rows that share their beginning, up to the first question's first token.

    Args:
        rows: the processor's unpadded output, one dict a question, each of one turn.

    Returns:
        One row with two lists more, `segment` and `position_ids`. Turns are numbered in order.
    """
    shared = min(_question_start(row) for row in rows)
    first = rows[0]
    if any(row["input_ids"][:shared] != first["input_ids"][:shared] for row in rows):
        raise ValueError("rows to be packed do not begin alike: pack questions about the same pictures only")
    packed = {name: list(values[:shared]) for name, values in first.items()}
    packed["segment"] = [SHARED] * shared
    packed["position_ids"] = list(range(shared))
    for turn, row in enumerate(rows, start=1):
        tail = len(row["input_ids"]) - shared
        for name, values in row.items():
            numbered = name in ("question_turn", "query_turn")
            packed[name] += [turn * value for value in values[shared:]] if numbered else values[shared:]
        packed["segment"] += [turn] * tail
        packed["position_ids"] += range(shared, shared + tail)
    return packed


def _question_start(row: dict[str, list[int]]) -> int:
    """Where the first turn's question begins; an empty one begins with its queries."""
    marks = row["question_turn"] if 1 in row["question_turn"] else row["query_turn"]
    return marks.index(1)


def apart(segments: torch.Tensor, attention: str) -> torch.Tensor:
    """The attention mask that keeps segments apart.

    Args:
        segments: int64 [B, T], :data:`PADDING_SEGMENT` at padding.
        attention: the implementation it is for: `sdpa` takes bool, `eager` takes what is added to the scores.

    Returns:
        bool or float32 [B, 1, T, T].
    """
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"attention {attention!r} takes no mask of this kind: independent turns need sdpa or eager")
    length = segments.shape[1]
    key, query = segments[:, None, :], segments[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = (causal & ((key == SHARED) | (key == query)))[:, None]  # [B, 1, T, T]
    if attention == "sdpa":
        return visible
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


def pad_packed(rows: list[dict[str, list[int]]], fillers: dict[str, int], attention: str) -> dict[str, Any]:
    """Packed rows as tensors [B, T], padded on the right, with their mask."""
    longest = -(-max(len(row["input_ids"]) for row in rows) // LENGTH_STEP) * LENGTH_STEP
    batch = {
        name: torch.tensor([row[name] + [fillers.get(name, 0)] * (longest - len(row[name])) for row in rows])
        for name in rows[0]
    }
    batch["attention_mask"] = apart(batch.pop("segment"), attention)
    return batch


__all__ = ["PADDING_SEGMENT", "SHARED", "apart", "pack_rows", "pad_packed"]
