"""What a recorded pass over prompts reads: tensors of few shapes, in memory that never moves.

In: prompts, from the position on that is run next, and features of their pictures. Out: where each position
belongs, worked out on the host and sent in one copy; nothing is asked of the device.

The model's own forward takes any prompt, and reads what tensors hold to do so, which cannot be recorded. Here is
what most prompts are: at most one turn is left to run, and all rows start at the same position. The rest runs plain.

    marks           ids    which visual token    which query token    whether it is the question      [4, n, T]
    limits          row of the cache             first position       last column that is real        [3, n]
    query columns                                                                                     [n, Q]
    visible         which of its pictures a row's queries may attend to                               [n, M]

Legend: n rows, T columns of the pass, W visible columns, M pictures a row, P patches and R visual tokens a
picture, V and D widths of encoder and language model, Q query tokens a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from flashsloth.inference.engine.cuda_graph import StagedInts, bucket, multiple
from flashsloth.inference.prompt import FIELDS, Prompt
from flashsloth.inference.vision import ImageFeatures

PROMPT_ROWS = (1, 2, 4, 8)
"""Prompts of one pass, rounded up to one of these; more are run as they are."""
SHORT_STEP, LONG_STEP = 32, 512
"""Columns are a multiple of the first up to the second, and beyond a multiple of that."""
MOST_POSITIONS = 4096
"""Passes of more positions (rows times columns) run as they are: their matrices take longer than starting them."""
MOST_PICTURES = 8
"""Of all rows of a pass together."""
WIDTH_STEP = 256
"""Columns that are attended to are a multiple of this."""
NOWHERE = -1
"""The place of anything but a visual token, or a query token."""
MARK_KINDS, LIMIT_KINDS = 4, 3


class PromptShape(NamedTuple):
    """The shape of a pass over prompts: n, T, M and W; W is T where prompts are run from their first position on."""

    rows: int
    length: int
    pictures: int
    width: int

    @property
    def begins(self) -> bool:
        """Whether nothing stands in the cache before the pass's positions."""
        return self.width == self.length


@dataclass(frozen=True)
class PromptPart:
    """What is run of one prompt.

    Attributes:
        prompt: whole.
        pictures: features of its pictures; None without.
        start: the first position that is run.
    """

    prompt: Prompt
    pictures: ImageFeatures | None
    start: int

    @property
    def turns(self) -> int:
        """How many turns' queries are run."""
        return len({*self.prompt.query_turn[self.start :]} - {0})

    @property
    def has_pictures(self) -> bool:
        """Whether all pictures of the prompt are there, those included that were run before."""
        return max(self.prompt.image_index, default=0) == (0 if self.pictures is None else len(self.pictures))


class PromptTensors(NamedTuple):
    """What a pass reads: int64 but for `visible`, `features` and `visual`; see the head of this file.

    Attributes:
        ids, visual_place, query_place, in_question: [n, T].
        row, start, last: [n].
        query_index: [n, Q].
        visible: bool [n, M].
        features: float [n, M * P, V].
        visual: float [n, M * R, D].
    """

    ids: torch.Tensor
    visual_place: torch.Tensor
    query_place: torch.Tensor
    in_question: torch.Tensor
    row: torch.Tensor
    start: torch.Tensor
    last: torch.Tensor
    query_index: torch.Tensor
    visible: torch.Tensor
    features: torch.Tensor
    visual: torch.Tensor


class PromptInputs:
    """The memory that recorded passes over prompts read, of all shapes the same.

    Args:
        config: the model's.
        pad_token_id: what stands where nothing does.
        dtype, device: the model's.
    """

    def __init__(self, config: Any, pad_token_id: int, dtype: torch.dtype, device: torch.device) -> None:
        self._queries, self._tokens, self._pad = config.num_query_tokens, config.num_image_tokens, pad_token_id
        ints = MARK_KINDS * MOST_POSITIONS + PROMPT_ROWS[-1] * (LIMIT_KINDS + self._queries) + MOST_PICTURES
        self._ints = StagedInts(ints, device)
        patches = config.num_views * config.num_patches
        sizes = (patches, config.vision_config.hidden_size), (self._tokens, config.text_config.hidden_size)
        self._features, self._visual = (torch.zeros(MOST_PICTURES, *size, dtype=dtype, device=device) for size in sizes)

    @property
    def static(self) -> list[torch.Tensor]:
        """All tensors that passes read."""
        return [self._ints.held, self._features, self._visual]

    def shape_of(self, parts: Sequence[PromptPart], rows: int, columns: int) -> PromptShape | None:
        """The shape of a pass over parts of one start; None where such a pass is not for recording.

        Args:
            parts: what is run.
            rows: of the cache that are free, or are these parts'.
            columns: of the cache.
        """
        if any(part.turns > 1 or not part.has_pictures or self._has_whole_views(part.prompt) for part in parts):
            return None
        start, longest = parts[0].start, max(len(part.prompt) for part in parts)
        pictures = max(max(part.prompt.image_index, default=0) for part in parts)
        shape = self.shape(len(parts), longest - start, pictures, start, columns)
        return shape if shape is not None and shape.rows <= rows else None

    def _has_whole_views(self, prompt: Prompt) -> bool:
        """Whether an HD model is shown a picture without its tiles."""
        pictures = max(prompt.image_index, default=0)
        return sum(place > 0 for place in prompt.image_index) != pictures * self._tokens

    def shape(self, count: int, longest: int, pictures: int, start: int, columns: int) -> PromptShape | None:
        """The shape that so many prompts need, of which so many positions are run, of so many pictures each."""
        rows = bucket(count, PROMPT_ROWS)
        longest = max(longest, self._queries)  # a row without queries names some columns all the same
        length = multiple(longest, SHORT_STEP if longest <= LONG_STEP else LONG_STEP)
        too_many = count > rows or rows * length > MOST_POSITIONS or rows * pictures > MOST_PICTURES
        if too_many or start + length > columns:
            return None
        width = min(multiple(start + length, WIDTH_STEP), columns) if start else length
        return PromptShape(rows, length, pictures, width)

    def write(self, shape: PromptShape, parts: Sequence[PromptPart], first_row: int) -> None:
        """Fill the memory for a pass; unused rows of the shape stand in the cache's rows after the parts'.

        Args:
            shape: of the pass.
            parts: of one start, in rows side by side.
            first_row: of the cache.
        """
        marks = np.full((MARK_KINDS, shape.rows, shape.length), NOWHERE, dtype=np.int64)
        marks[0], marks[3] = self._pad, 0
        limits = np.zeros((LIMIT_KINDS, shape.rows), dtype=np.int64)
        limits[0] = np.arange(first_row, first_row + shape.rows)
        limits[1] = parts[0].start if parts else 0
        query_index = np.tile(np.arange(self._queries), (shape.rows, 1))
        visible = np.zeros((shape.rows, shape.pictures), dtype=np.int64)
        for number, part in enumerate(parts):
            limits[2, number] = len(part.prompt) - part.start - 1
            self._mark(part, marks[:, number], query_index[number], visible[number])
        self._ints.write(np.concatenate([one.ravel() for one in (marks, limits, query_index, visible)]))
        if shape.pictures:
            self._show(shape, [part.pictures for part in parts])

    def tensors(self, shape: PromptShape) -> PromptTensors:
        """The memory as a pass of a shape sees it."""
        rows, length, count, _ = shape
        sizes = [(MARK_KINDS, rows, length), (LIMIT_KINDS, rows), (rows, self._queries), (rows, count)]
        ints = self._ints.held[: sum(map(prod, sizes))].split(list(map(prod, sizes)))
        marks, limits, query_index, visible = (one.view(size) for one, size in zip(ints, sizes, strict=True))
        features, visual = (held[: rows * count] for held in (self._features, self._visual))
        if count:
            features, visual = (held.unflatten(0, (rows, count)).flatten(1, 2) for held in (features, visual))
        ids, visual_place, query_place, in_question = marks
        row, start, last = limits
        return PromptTensors(
            ids,
            visual_place,
            query_place,
            in_question,
            row,
            start,
            last,
            query_index,
            visible > 0,
            features,
            visual,
        )

    def _mark(self, part: PromptPart, marks: np.ndarray, query_index: np.ndarray, visible: np.ndarray) -> None:
        """Fill a row's marks [4, T], query columns [Q] and visible pictures [M]."""
        ids, images, queries, questions = (np.asarray(getattr(part.prompt, name)) for name in FIELDS)
        length = len(ids) - part.start
        marks[0, :length] = ids[part.start :]
        for picture in range(1, images.max(initial=0) + 1):
            [place] = np.nonzero(images[part.start :] == picture)
            marks[1, place] = (picture - 1) * self._tokens + np.arange(len(place))
        [columns] = np.nonzero(queries[part.start :])
        if not len(columns):
            return
        marks[2, columns] = np.arange(len(columns))
        query_index[:] = columns
        first = part.start + columns[0]
        marks[3, :length] = questions[part.start :] == queries[first]
        for picture in range(1, images.max(initial=0) + 1):
            visible[picture - 1] = np.nonzero(images == picture)[0][-1] < first

    def _show(self, shape: PromptShape, shown: Sequence[ImageFeatures | None]) -> None:
        """Put pictures where the pass reads them; elsewhere it reads zeros, and no former pass's NaN."""
        size = shape.rows, shape.pictures
        names = ("last_hidden_state", self._features), ("pooler_output", self._visual)
        for name, held in names:
            rows = held[: prod(size)].zero_().unflatten(0, size)  # [n, M, ..]
            for row, pictures in zip(rows, shown, strict=False):
                if pictures is not None:
                    row[: len(pictures)] = pictures.features[name]
