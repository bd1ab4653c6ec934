"""Who waits, who runs, and who may start: first in, first out, within a budget of work a step and of memory.

In: sequences, as requests bring them. Out: those that may start now; the one that waits longest goes first, and no
other passes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from flashsloth.inference.kv_cache import round_columns
from flashsloth.inference.request import FinishReason, Request
from flashsloth.inference.sampling import Sampled, SamplingState

if TYPE_CHECKING:
    from flashsloth.inference.engine.config import EngineConfig
    from flashsloth.inference.kv_cache import LayerStates
    from flashsloth.inference.vision import ImageFeatures
    from flashsloth.model.attention_maps import AttentionWeights

NO_ROW = -1


@dataclass(eq=False)
class Sequence:
    """One answer on its way.

    Attributes:
        request_id, request: what it answers.
        sampling: its parameters, seed, place among the request's answers, and tokens so far.
        limit: the most tokens it may have.
        deadline: when it ends at the latest, in the engine's clock; None for never.
        pictures: features of its pictures, once they were encoded.
        states: keys and values of its first positions, until it is in a row.
        leader: a sequence in a row with the same prefix.
        shared: whether others have the same prefix.
        siblings: others of its request, which go on from its prompt.
        attention: the prompt's, if the request asks for it, once it has been run.
        row: of the cache, once it has one.
        aborted: whether its caller does not want it any more.
        new: tokens that have not been handed out.
        finish_reason, error: its end.
    """

    request_id: int
    request: Request
    sampling: SamplingState
    limit: int
    deadline: float | None = None
    pictures: ImageFeatures | None = None
    states: LayerStates | None = None
    leader: Sequence | None = None
    shared: bool = False
    siblings: list[Sequence] = field(default_factory=list)
    attention: AttentionWeights | None = None
    row: int = NO_ROW
    aborted: bool = False
    new: list[Sampled] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: Exception | None = None

    @property
    def length(self) -> int:
        """Positions so far; the last token has not been run."""
        return len(self.request.prompt) + len(self.sampling.tokens)

    @property
    def most_columns(self) -> int:
        """Columns of the cache that it may come to need: its last token is never run."""
        return len(self.request.prompt) + self.limit - 1

    @property
    def position(self) -> int:
        """Where its last token stands, which is run next."""
        return self.length - 1

    @cached_property
    def prefix_length(self) -> int:
        """Positions before its last question: what other questions about the same pictures share."""
        return self.request.prompt.last_question_start()

    @property
    def known_length(self) -> int:
        """Positions whose keys and values it brings along."""
        return 0 if self.states is None else self.states[0][0].shape[2]

    @cached_property
    def prefix(self) -> Hashable:
        """Equal where keys and values of the positions before the last question are."""
        return self.prefix_until(self.prefix_length)

    def prefix_until(self, stop: int) -> Hashable:
        """Equal where keys and values of the first positions are."""
        prompt, pictures = self.request.prompt, self.request.pictures
        shown = max(prompt.image_index[:stop], default=0)
        return () if pictures is None else tuple(pictures.keys[:shown]), tuple(prompt.columns(0, stop))


class Scheduler:
    """The waiting queue and the running sequences.

    Args:
        config: limits.
        positions: that the cache may hold, over all rows.

    Attributes:
        waiting, running: sequences.
        starved_steps: at whose start sequences waited beside free rows, as at the start of the step before: a step's
            budget, or memory, kept them.
    """

    def __init__(self, config: EngineConfig, positions: int) -> None:
        self._config, self._positions = config, positions
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.starved_steps, self._is_starved = 0, False

    def __iter__(self) -> Iterator[Sequence]:
        yield from self.waiting
        yield from self.running

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.running)

    def can_ever_fit(self, columns: int) -> bool:
        """Whether a sequence of so many columns fits into the cache when it is alone."""
        return round_columns(columns) <= self._positions

    def admit(self) -> list[Sequence]:
        """Sequences that start now, moved from waiting to running."""
        admitted: list[Sequence] = []
        pictures = tokens = 0
        most = max((one.most_columns for one in self.running), default=0)
        streams = any(one.request.streams for one in self.running)
        while self.waiting and len(self.running) < self._config.max_rows:
            first = self.waiting[0]
            most = max(most, first.most_columns)
            pictures += first.request.pictures.unencoded if first.request.pictures and first.pictures is None else 0
            tokens += len(first.request.prompt)
            streams |= first.request.streams
            too_many = streams and pictures > self._config.pictures_per_step  # who streams would wait for them
            over = too_many or tokens > self._config.prompt_tokens_per_step
            if (admitted and over) or (len(self.running) + 1) * round_columns(most) > self._positions:
                break
            admitted.append(first)
            self.running.append(self.waiting.popleft())
        is_starved = bool(self.waiting) and len(self.running) < self._config.max_rows
        self.starved_steps += is_starved and self._is_starved
        self._is_starved = is_starved
        return admitted

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
