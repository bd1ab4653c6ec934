"""Prompts to the tensors of a reading pass: all that is known about positions is worked out here, on the processor.

In: which part of which prompt goes to which row of the cache. Out: the arguments of `Passes.read`, in one of a few
shapes, moved to the accelerator in as few copies as can be, none of which it is waited for.

A pass holds at most one turn a row, so a prompt of several is read in several passes (a part each), as a conversation
is that goes on; what stands before a part is in the cache.

Legend: n rows, T columns of the pass, M pictures a row, P patches and R visual tokens a picture, Q query tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from flashsloth.inference.accelerator.passes import NOWHERE
from flashsloth.inference.accelerator.settings import AcceleratorSettings, bucket
from flashsloth.inference.prompt import Prompt
from flashsloth.inference.vision import ImageFeatures

MARK_KINDS, LIMIT_KINDS = 4, 3


@dataclass(frozen=True)
class Part:
    """Columns `start` to `stop` of a prompt, with one turn or none.

    Attributes:
        row: in the cache.
        prompt: whole.
        seen: what the model sees in its pictures; None without.
        start, stop: which columns are read now; those before `start` are in the cache.
    """

    row: int
    prompt: Prompt
    seen: ImageFeatures | None
    start: int
    stop: int

    @property
    def turn(self) -> int:
        """Which turn's query tokens stand here; 0 for none."""
        return max(self.prompt.query_turn[self.start : self.stop], default=0)

    def visual_places(self, tokens_per_picture: int) -> list[int]:
        """Of each column, which of the row's visual tokens stands there."""
        counts: dict[int, int] = {}
        places = []
        for picture in self.prompt.image_index[: self.stop]:
            count = counts.get(picture, 0)
            places.append((picture - 1) * tokens_per_picture + count if picture else NOWHERE)
            counts[picture] = count + 1
        return places[self.start :]

    def query_columns(self) -> list[int]:
        """Columns of the turn's query tokens, counted from the part's beginning."""
        here = self.prompt.query_turn[self.start : self.stop]
        return [column for column, turn in enumerate(here) if turn]

    def visible_pictures(self) -> list[bool]:
        """Which of the row's pictures stand before the turn's query tokens: those they may look at."""
        if not self.turn or self.seen is None:
            return []
        first = self.start + self.query_columns()[0]
        before = set(self.prompt.image_index[:first])
        after = set(self.prompt.image_index[first:])
        return [number in before and number not in after for number in range(1, len(self.seen) + 1)]

    @property
    def needs_pictures(self) -> bool:
        """Whether visual tokens stand here, or a turn that may look at something."""
        return any(self.prompt.image_index[self.start : self.stop]) or any(self.visible_pictures())


def parts_of(prompt: Prompt, seen: ImageFeatures | None, row: int, start: int) -> list[Part]:
    """What is left to read of a prompt from `start` on, each part with at most one turn."""
    ends = [
        column + 1
        for column in range(start, len(prompt))
        if prompt.query_turn[column]
        and (column + 1 == len(prompt) or prompt.query_turn[column + 1] != prompt.query_turn[column])
    ]
    cuts = [start, *ends[:-1], len(prompt)]
    return [Part(row, prompt, seen, first, last) for first, last in pairwise(cuts)]


@dataclass(frozen=True)
class Reading:
    """The arguments of a reading pass.

    Attributes:
        tensors: marks, limits, query_index, features, visual, visible; see `Passes.read`.
        width: columns that are attended to.
    """

    tensors: tuple[torch.Tensor | None, ...]
    width: int

    @property
    def positions(self) -> int:
        """Rows times columns."""
        marks = self.tensors[0]
        assert marks is not None
        return marks[0].numel()


class PromptRows:
    """Makes readings for one model.

    Args:
        config: of the model.
        settings: the shapes.
        pad_token_id: what stands where nothing does.
        dtype, device: of the model.
    """

    def __init__(
        self,
        config: Any,
        settings: AcceleratorSettings,
        pad_token_id: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._queries, self._visual = config.num_query_tokens, config.num_image_tokens
        self._settings, self._pad, self._dtype, self._device = settings, pad_token_id, dtype, device

    def read(self, parts: Sequence[Part], spare_row: int, columns: int) -> Reading:
        """The reading of some parts.

        Args:
            parts: at most as many as the largest of `reading_rows`.
            spare_row: of the cache, for the rows that pad the pass.
            columns: of the cache.
        """
        count = bucket(len(parts), self._settings.reading_rows)
        longest = max(part.stop - part.start for part in parts)
        length = self._settings.prompt_columns(max(longest, self._queries))
        reach = max(part.start for part in parts) + length
        width = length if reach == length else self._settings.width(reach)
        marks = torch.zeros(MARK_KINDS, count, length, dtype=torch.long)
        marks[0], marks[1], marks[2] = self._pad, NOWHERE, NOWHERE
        limits = torch.zeros(LIMIT_KINDS, count, dtype=torch.long)
        limits[0] = spare_row
        query_index = torch.arange(self._queries).repeat(count, 1)
        for number, part in enumerate(parts):
            self._mark(part, marks[:, number])
            limits[:, number] = torch.tensor([part.row, part.start, part.stop - part.start - 1])
            if part.turn:
                query_index[number] = torch.tensor(part.query_columns())
        pictures = self._pictures(parts, count)
        moved = (self._move(tensor) for tensor in (marks, limits, query_index))
        return Reading((*moved, *pictures), min(width, columns))

    def _mark(self, part: Part, marks: torch.Tensor) -> None:
        """Fill a row's marks, int64 [4, T]."""
        here = slice(part.start, part.stop)
        ordinals = {column: ordinal for ordinal, column in enumerate(part.query_columns())}
        length = part.stop - part.start
        question = [int(bool(part.turn) and turn == part.turn) for turn in part.prompt.question_turn[here]]
        rows = [
            part.prompt.input_ids[here],
            part.visual_places(self._visual),
            [ordinals.get(column, NOWHERE) for column in range(length)],
            question,
        ]
        marks[:, :length] = torch.tensor(rows)

    def _pictures(self, parts: Sequence[Part], count: int) -> tuple[torch.Tensor | None, ...]:
        """Features [n, M * P, V], visual tokens [n, M * R, D] and who may look at what, bool [n, M]; or three None."""
        shown = [(number, part, part.seen) for number, part in enumerate(parts) if part.needs_pictures]
        if not shown:
            return None, None, None
        most = max(len(seen) for _, _, seen in shown if seen is not None)
        visible = torch.zeros(count, most, dtype=torch.bool)
        features = visual = None
        for number, part, seen in shown:
            assert seen is not None
            if features is None or visual is None:
                features, visual = (self._room(count, most, tensor) for tensor in _tensors(seen))
            for room, tensor in zip((features, visual), _tensors(seen), strict=True):
                room[number, : len(seen)] = tensor
            looks = part.visible_pictures()
            visible[number, : len(looks)] = torch.tensor(looks, dtype=torch.bool)
        assert features is not None
        assert visual is not None
        return features.flatten(1, 2), visual.flatten(1, 2), self._move(visible)

    def _room(self, count: int, most: int, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros(count, most, *like.shape[1:], dtype=self._dtype, device=self._device)

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        return move(tensor, self._device)


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the processor on `device`, without waiting for anything there."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _tensors(seen: ImageFeatures) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [M, P, V] and visual tokens [M, R, D]."""
    return seen.features.last_hidden_state, seen.features.pooler_output


__all__ = ["Part", "PromptRows", "Reading", "move", "parts_of"]
