"""Answers under way on an accelerator, each in a row of the cache: prompts are read in, steps made, tokens handed out.

In: jobs and what is known of their beginnings. Out: tokens, as they become known on the processor.

Nothing here waits for the accelerator but `settle`, and that only for what was started `lag` steps before:

    accelerator   | read | step 1 | step 2 | step 3 |
    processor       start step 1 | token 0, start step 2 | token 1, start step 3 | ...

So an answer's end is seen late by that, and the steps made meanwhile in its row are thrown away.

Legend: R rows of the cache, n rows of a pass, K vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from flashsloth.inference.accelerator.prompt_rows import Part, PromptRows, move, parts_of
from flashsloth.inference.accelerator.recorded import CompiledPass, RecordedPass
from flashsloth.inference.accelerator.settings import AcceleratorSettings, bucket
from flashsloth.inference.accelerator.slot_cache import SlotCache
from flashsloth.inference.decoding import Chooser
from flashsloth.inference.kv_cache import LayerStates

if TYPE_CHECKING:
    from flashsloth.inference.generator import Job


UNSOUND = -1
"""What a token is taken from, so that it is negative, where its logits were not finite."""


@dataclass(eq=False)
class Answering:
    """One answer under way.

    Attributes:
        place: whose it is, for who asked.
        job: what is answered.
        room: the most tokens it may have.
        beginning: keys and values of the prompt's first positions, where they are known.
        row: of the cache, once it has one.
        started: tokens that have been chosen, known on the processor or not yet.
        ids: tokens that are known.
        done: whether the last of them is there.
    """

    place: int
    job: Job
    room: int
    beginning: LayerStates | None = None
    row: int = -1
    started: int = 0
    ids: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def columns(self) -> int:
        """Columns of the cache that it may come to need; its last token is never run."""
        return len(self.job.prompt) + self.room

    @property
    def position(self) -> int:
        """Where the token that was chosen last stands."""
        return len(self.job.prompt) + self.started - 1


class Told(NamedTuple):
    """A token that is known now, whose it is, and whether it is its last."""

    answering: Answering
    token: int
    last: bool


class BrokenAnswer(Exception):  # noqa: N818 - a word to the engine, which explains it
    """Logits of an answer that were not finite."""

    def __init__(self, answering: Answering) -> None:
        super().__init__()
        self.answering = answering


@dataclass
class Tick:
    """Tokens that were chosen in one pass, on their way to the processor.

    Attributes:
        tokens: int64 [n], filled once `event` has come.
        event: on an accelerator.
        answers: (row of `tokens`, whose it is).
    """

    tokens: torch.Tensor
    event: Any
    answers: list[tuple[int, Answering]]


class Slots:
    """A cache with the passes that are recorded over it, and who is in which row.

    Args:
        read, step: the passes; see `passes.py`.
        prompts: makes the reading passes' tensors.
        cache: where keys and values stand.
        settings: shapes and habits.
        device: of the model.
        many: whether it is the engine's cache for queues.
    """

    def __init__(
        self,
        read: CompiledPass,
        step: CompiledPass,
        prompts: PromptRows,
        cache: SlotCache,
        settings: AcceleratorSettings,
        device: torch.device,
        many: bool,
    ) -> None:
        fixed = (cache.keys, cache.values)
        self.read, self.step = (RecordedPass(what, fixed, settings.records) for what in (read, step))
        self.cache, self.many = cache, many
        self._prompts, self._settings, self._device = prompts, settings, device
        self._steps = [size for size in settings.slots if size <= cache.rows]
        self._tokens = torch.zeros(cache.rows, dtype=torch.long, device=device)  # each row's last token
        self._rows: list[Answering | None] = [None] * cache.rows
        self._ticks: deque[Tick] = deque()

    @property
    def free(self) -> int:
        """Rows that nobody is in."""
        return self._rows.count(None)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing is on its way."""
        return not self._ticks and self.free == self.cache.rows

    @property
    def going(self) -> bool:
        """Whether there is a step to make."""
        return any(self._rows)

    def takes(self, answering: Answering) -> bool:
        """Whether a row is long enough for an answer; the last column is not for it."""
        return answering.columns < self.cache.columns

    @torch.no_grad()
    def admit(self, newcomers: Sequence[Answering], chooser: Chooser) -> None:
        """Read prompts into free rows, of which there must be enough, and choose each one's first token."""
        free = (row for row, who in enumerate(self._rows) if who is None)
        last: list[tuple[Part, Answering]] = []
        waves: list[list[Part]] = []
        for who, row in zip(newcomers, islice(free, len(newcomers)), strict=True):
            self._rows[row], who.row = who, row
            start = 0
            if who.beginning is not None:
                self.cache.put(row, who.beginning)
                start, who.beginning = who.beginning[0][0].shape[2], None
            *before, final = parts_of(who.job.prompt, who.job.seen, row, start)
            last.append((final, who))
            for number, part in enumerate(before):
                if number == len(waves):
                    waves.append([])
                waves[number].append(part)
        for wave in waves:
            for some in _chunks(wave, self._settings.reading_rows[-1]):
                self._read(some)
        for ready in _chunks(last, self._settings.reading_rows[-1]):
            logits = self._read([part for part, _ in ready])[: len(ready)]
            sound = _make_sound(logits)
            tokens = chooser(logits)
            rows = move(torch.tensor([part.row for part, _ in ready]), self._device)
            self._tokens.index_copy_(0, rows, tokens)
            self._send(tokens, sound, list(enumerate(who for _, who in ready)))

    @torch.no_grad()
    def make_step(self, chooser: Chooser) -> None:
        """One more token for everyone; there must be someone."""
        going = [who for who in self._rows if who is not None]
        count = bucket(max(who.row for who in going) + 1, self._steps)
        positions = [0] * count  # a row that nobody is in writes its first column, which is written over with the next
        for who in going:
            positions[who.row] = who.position
        width = min(self._settings.width(max(positions) + 1), self.cache.columns)
        logits = self.step(
            self._tokens[:count], move(torch.tensor(positions), self._device), numbers=(width,)
        )  # [n, K]
        sound = _make_sound(logits)
        tokens = chooser(logits)
        self._tokens[:count] = tokens
        self._send(tokens, sound, [(who.row, who) for who in going])

    @torch.no_grad()
    def try_step(self, rows: int, width: int, chooser: Chooser) -> None:
        """A step that is nobody's, so that it is compiled and recorded; nobody may be here."""
        assert self.idle
        count = bucket(rows, self._steps)
        logits = self.step(self._tokens[:count], move(torch.zeros(count).long(), self._device), numbers=(width,))
        chooser(logits)

    def settle(self, leave: int, end_ids: Collection[int]) -> list[Told]:
        """Tokens as they become known, but for the last `leave` passes'; a row is free once its answer has ended.

        Raises:
            BrokenAnswer: where logits were not finite.
        """
        known: list[Told] = []
        while len(self._ticks) > leave:
            tick = self._ticks.popleft()
            if tick.event is not None:
                tick.event.synchronize()
            tokens = tick.tokens.tolist()
            for place, who in tick.answers:
                if who.done:
                    continue  # made before its end was seen
                if tokens[place] <= UNSOUND:
                    raise BrokenAnswer(who)
                who.ids.append(tokens[place])
                who.done = tokens[place] in end_ids or len(who.ids) == who.room
                known.append(Told(who, tokens[place], who.done))
                if who.done:
                    self._leave(who)
        return known

    def clear(self) -> None:
        """Nobody is here any more."""
        self._rows = [None] * self.cache.rows
        self._ticks.clear()

    def _read(self, parts: Sequence[Part]) -> torch.Tensor:
        reading = self._prompts.read(parts, self.cache.spare_row, self.cache.columns)
        record = reading.positions <= self._settings.recorded_positions
        return self.read(*reading.tensors, numbers=(reading.width,), record=record)

    def _send(self, tokens: torch.Tensor, sound: torch.Tensor, answers: list[tuple[int, Answering]]) -> None:
        """Let tokens travel to the processor; who then has all it may have makes room for others.

        A token of logits that are not `sound`, bool [n], travels as a negative number.
        """
        tokens = torch.where(sound, tokens, UNSOUND - tokens)
        if self._device.type == "cuda":
            here = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            here.copy_(tokens, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        else:
            here, event = tokens.clone(), None
        self._ticks.append(Tick(here, event, answers))
        for _, who in answers:
            who.started += 1
            if who.started == who.room:
                self._leave(who)

    def _leave(self, who: Answering) -> None:
        if self._rows[who.row] is who:
            self._rows[who.row] = None


def _make_sound(logits: torch.Tensor) -> torch.Tensor:
    """Bool [n] of logits [n, K]: whether all of a row are finite; one that is not becomes zeros, to draw from.

    Nothing is waited for.
    """
    total = logits.sum(dim=-1, dtype=torch.float32)
    sound = total - total == 0
    logits.masked_fill_(~sound[:, None], 0)
    return sound


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


__all__ = ["Answering", "BrokenAnswer", "Slots", "Tick", "Told"]
