"""Several things in one row, each as if it were alone: questions about one picture, and whole samples.

In: rows of lists, as the processor makes them. Out: fewer rows, with positions and an attention mask that keep apart
what does not belong together. The loss and its gradients are those of the separate rows.

Questions about one picture (`join_questions`) share their beginning, which is written once; no question can be answered
from another's answer, as it could in one conversation. Samples (`join_samples`) share nothing.

    row            p  p  p  a  a  b  b  s  s        p: shared by a and b, two questions; s: another sample
    sample_index   1  1  1  1  1  1  1  2  2
    branch         0  0  0  1  1  2  2  0  0
    position_ids   0  1  2  3  4  3  4  0  1

    who sees whom  p a b s
               p   x . . .     (and always only what stands before)
               a   x x . .
               b   x . x .
               s   . . . x

EmbQ needs no mask: its queries read the question of their own turn, and turns and pictures are numbered through the
row; which pictures are a sample's, the model learns from `sample_index` (see `model/positions.py`).

Legend: B rows, T positions of the longest.
"""

from __future__ import annotations

from typing import Any

import torch

from flashsloth.model.processing_flashsloth import IGNORED_LABEL

Row = dict[str, list[int]]

SHARED = 0
"""The branch of what all questions of a sample share, and of a sample that has no branches."""
PADDING_SAMPLE = 0
"""The sample of padding: real ones count from 1."""
LENGTH_STEP = 16
"""Batches are padded to a multiple of this: on a processor each new length costs kernel memory that is never freed."""
TURN_NAMES = ("question_turn", "query_turn")


def join_questions(rows: list[Row]) -> Row:
    """Join rows that share their beginning, up to the first question's first token.

    Args:
        rows: the processor's unpadded output, one dict a question, each of one turn.

    Returns:
        One row with two lists more, `branch` and `position_ids`. Turns are numbered in order.
    """
    shared = min(_question_start(row) for row in rows)
    first = rows[0]
    if any(row["input_ids"][:shared] != first["input_ids"][:shared] for row in rows):
        raise ValueError("rows to be packed do not begin alike: pack questions about the same pictures only")
    packed = {name: list(values[:shared]) for name, values in first.items()}
    packed["branch"] = [SHARED] * shared
    packed["position_ids"] = list(range(shared))
    for turn, row in enumerate(rows, start=1):
        tail = len(row["input_ids"]) - shared
        for name, values in row.items():
            numbered = name in TURN_NAMES
            packed[name] += [turn * value for value in values[shared:]] if numbered else values[shared:]
        packed["branch"] += [turn] * tail
        packed["position_ids"] += range(shared, shared + tail)
    return packed


def _question_start(row: Row) -> int:
    """Where the first turn's question begins; an empty one begins with its queries."""
    marks = row["question_turn"] if 1 in row["question_turn"] else row["query_turn"]
    return marks.index(1)


def with_positions(row: Row) -> Row:
    """A row with `branch` and `position_ids`, where it has none: it is one branch, counted from 0."""
    if "branch" in row:
        return row
    length = len(row["input_ids"])
    return {**row, "branch": [SHARED] * length, "position_ids": list(range(length))}


def join_samples(rows: list[Row]) -> Row:
    """Join the rows of several samples.

    Returns:
        One row with the list `sample_index` more. Turns and pictures are numbered through it, positions begin at 0 with
        every sample, and no sample's first token is learned: what stands before it is another's.
    """
    joined: Row = {}
    pictures = turns = 0
    for number, row in enumerate(map(with_positions, rows), start=1):
        shift = {"image_index": pictures, **dict.fromkeys(TURN_NAMES, turns)}
        for name, values in row.items():
            by = shift.get(name, 0)
            moved = [value + by if value else 0 for value in values] if by else list(values)
            if name == "labels":
                moved[0] = IGNORED_LABEL
            joined.setdefault(name, []).extend(moved)
        joined.setdefault("sample_index", []).extend([number] * len(row["input_ids"]))
        pictures += max(row["image_index"])
        turns += max(row["query_turn"])
    return joined


def fill_rows(lengths: list[int], max_length: int) -> list[list[int]]:
    """Which samples share a row: the longest first, each into the first row that has room.

    Args:
        lengths: tokens of each sample; one that is longer than a row gets a row alone.
        max_length: tokens of a row.

    Returns:
        Numbers of samples, a list a row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        for row, left in enumerate(room):
            if lengths[number] <= left:
                rows[row].append(number)
                room[row] -= lengths[number]
                break
        else:
            rows.append([number])
            room.append(max_length - lengths[number])
    return rows


def apart(sample_index: torch.Tensor, branch: torch.Tensor, attention: str) -> torch.Tensor:
    """The attention mask that keeps samples and branches apart.

    Args:
        sample_index: int64 [B, T], :data:`PADDING_SAMPLE` at padding, which sees itself alone.
        branch: int64 [B, T].
        attention: the implementation it is for: `sdpa` takes bool, `eager` takes what is added to the scores.

    Returns:
        bool or float32 [B, 1, T, T].
    """
    if attention not in ("sdpa", "eager"):
        raise ValueError(f"attention {attention!r} takes no mask of this kind: packed rows need sdpa or eager")
    length = branch.shape[1]
    same_sample = sample_index[:, None, :] == sample_index[:, :, None]  # [B, T, T]
    same_branch = (branch[:, None, :] == SHARED) | (branch[:, None, :] == branch[:, :, None])
    real = (sample_index != PADDING_SAMPLE)[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    itself = torch.eye(length, dtype=torch.bool)
    visible = ((causal & same_sample & same_branch & real) | itself)[:, None]  # [B, 1, T, T]
    if attention == "sdpa":
        return visible
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


def pad_rows(rows: list[Row], fillers: dict[str, int], step: int = 1) -> dict[str, torch.Tensor]:
    """Rows as tensors int64 [B, T], padded on the right to a multiple of `step`; 0 where no filler is named."""
    longest = -(-max(len(row["input_ids"]) for row in rows) // step) * step
    return {
        name: torch.tensor([row[name] + [fillers.get(name, 0)] * (longest - len(row[name])) for row in rows])
        for name in rows[0]
    }


def pad_packed(rows: list[Row], fillers: dict[str, int], attention: str) -> dict[str, Any]:
    """Rows from :func:`join_samples` as tensors, with the mask that keeps apart what is in them."""
    batch: dict[str, Any] = pad_rows(rows, fillers, LENGTH_STEP)
    batch["attention_mask"] = apart(batch["sample_index"], batch.pop("branch"), attention)
    if max(max(row["sample_index"]) for row in rows) == 1:
        del batch["sample_index"]  # a row a sample is what the model takes for granted
    return batch
