"""Passes of the model over the sequences that run: prompts are run once, then a token of each at a step.

In: sequences. Out: logits, a row a sequence; and keys and values, which stay here.

    BatchedRunner    all sequences in one pass, each in a row of one block of keys and values; any device
    SingleRunner     a sequence at a time, for language models whose layers keep another kind of state

Legend: n sequences of a pass, T positions of a pass, W visible columns, K vocabulary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from flashsloth.inference.engine.cuda_graph import RecordingCounts
from flashsloth.inference.engine.scheduler import NO_ROW, Sequence
from flashsloth.inference.kv_cache import (
    COLUMN_STEP,
    HeadShapes,
    KVCache,
    LayerStates,
    PassCache,
    causal_mask,
    round_columns,
)
from flashsloth.inference.prompt import Prompt, pad_right
from flashsloth.inference.vision import ImageFeatures, picture_inputs
from flashsloth.model.attention_maps import recording_attention
from flashsloth.model.loading.non_finite import NonFiniteError, describe_non_finite, explained
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

PADDED_SHARE = 1.25
"""Prompts are run together while the longest is at most so many times as long as the shortest."""


class WarmedUp(NamedTuple):
    """How many passes are recorded, of those that a load needs: steps, passes over prompts, and over pictures."""

    steps: int = 0
    prompts: int = 0
    pictures: int = 0


class ModelRunner(ABC):
    """What the engine needs of a model.

    Args:
        model: what answers.
        pad_token_id: what stands where nothing does.

    Attributes:
        sequences: that have a row; logits come in their order.
        position_bytes: what keys and values of a position take; 0 where that is not known.
        shares_prefixes: whether keys and values can be copied from row to row, kept and put back.
        runs_again: whether a pass over tokens that has failed may be run again, and writes the same in the same place.
        encode: the runner's own way to run the image encoder, as `ImageEncoder.encode`; None for the usual one.
    """

    position_bytes = 0
    shares_prefixes = runs_again = False
    encode: Callable[[torch.Tensor], FlashSlothImageFeatures] | None = None

    def __init__(self, model: FlashSlothForConditionalGeneration, pad_token_id: int) -> None:
        self._model, self._pad = model, pad_token_id
        self.sequences: list[Sequence] = []

    @property
    def counts(self) -> RecordingCounts:
        """What became of recordings; whether passes run slower than they should, for one."""
        return RecordingCounts()

    def warm_up(self, rows: int, columns: int, prompts: Iterable[Prompt] = ()) -> WarmedUp:
        """Pay ahead for what is paid once, while nothing runs; where there is nothing of the kind, nothing happens.

        Args:
            rows: sequences that will run at once.
            columns: of the longest of them, prompt and answer together.
            prompts: some, as they will come, the shortest and the longest among them.

        Raises:
            EngineError: while sequences run.
        """
        return WarmedUp()

    @abstractmethod
    def prefill(self, sequences: list[Sequence]) -> Iterator[tuple[list[Sequence], torch.Tensor]]:
        """Give sequences rows and run their prompts: (some of them, logits float [n, K]) a pass."""

    @abstractmethod
    def decode(self, sequences: list[Sequence]) -> torch.Tensor:
        """Run the last token of sequences that stand in rows side by side: logits float [n, K]."""

    @abstractmethod
    def release(self, sequence: Sequence, clean: bool = False) -> None:
        """Free a sequence's row; with `clean`, NaN or infinity may stand in it."""

    def greedy_tokens(self, logits: torch.Tensor) -> list[int] | None:
        """The likeliest tokens that may be generated, where the pass that made these logits has worked them out.

        None where it has not, where the logits were written to, and where some are not finite.
        """
        return None

    def fork(self, sequence: Sequence, others: list[Sequence]) -> None:
        """Give others rows that hold what a sequence's does; only where prefixes are shared are there any."""
        assert not others

    def states(self, sequence: Sequence, stop: int) -> LayerStates | None:
        """A copy of keys and values of a sequence's first positions; None where the state is of another kind."""
        return None


class BatchedRunner(ModelRunner):
    """All sequences in one pass.

    Args:
        model: what answers.
        shapes: of its heads.
        pad_token_id: what stands where nothing does.
        cache_bytes: for keys and values; None for any number.
    """

    shares_prefixes = runs_again = True

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        shapes: HeadShapes,
        pad_token_id: int,
        cache_bytes: int | None = None,
    ) -> None:
        super().__init__(model, pad_token_id)
        self.cache = KVCache(shapes, model.dtype, model.device)
        self.position_bytes = self.cache.position_bytes
        self._positions = math.inf if cache_bytes is None else cache_bytes // self.position_bytes

    def prefill(self, sequences: list[Sequence]) -> Iterator[tuple[list[Sequence], torch.Tensor]]:
        """See :class:`ModelRunner`; sequences of about the same length are run together."""
        for some in _alike(sequences):
            first = len(self.sequences)
            starts = [_start(one) for one in some]
            longest = max(len(one.request.prompt) for one in some)
            self._reserve(some, longest)
            for row, one in enumerate(some, first):
                self._begin(one, row)
            with _recording(self._model, some[0]):
                logits = self._run_prompts(some, starts, first)
            yield some, logits

    @torch.no_grad()
    def decode(self, sequences: list[Sequence]) -> torch.Tensor:
        """See :class:`ModelRunner`."""
        positions = [one.position for one in sequences]
        width = max(positions) + 1
        self.cache.reserve(len(self.sequences), width, self._positions)
        device = self._model.device
        tokens = torch.tensor([[one.sampling.tokens[-1]] for one in sequences], device=device)
        place = torch.tensor(positions, device=device)[:, None]  # [n, 1]
        columns: torch.Tensor | int = positions[0] if len(set(positions)) == 1 else place
        mask = None if isinstance(columns, int) else causal_mask(place, width)
        cache = PassCache(self.cache, (sequences[0].row, len(sequences)), columns, width)
        outputs = self._model.model(
            input_ids=tokens, attention_mask=mask, position_ids=place, cache=cache, use_cache=True
        )
        logits: torch.Tensor = self._model.lm_head(outputs.last_hidden_state[:, -1])
        return logits

    def fork(self, sequence: Sequence, others: list[Sequence]) -> None:
        """See :class:`ModelRunner`."""
        if others:
            self._reserve(others, len(sequence.request.prompt))
        for one in others:
            one.row = len(self.sequences)
            self.sequences.append(one)
            self.cache.copy(sequence.row, one.row, len(sequence.request.prompt))

    def release(self, sequence: Sequence, clean: bool = False) -> None:
        """See :class:`ModelRunner`; the last row moves to where a row was taken from others' midst."""
        row, last = sequence.row, self.sequences.pop()
        if clean:
            self.cache.clean(row)
        if last is not sequence:
            self.cache.copy(last.row, row, min(last.length, self.cache.columns))
            if clean:
                self.cache.clean(last.row)
            self.sequences[row], last.row = last, row
        sequence.row = NO_ROW
        if not self.sequences:
            self.cache.release()

    def states(self, sequence: Sequence, stop: int) -> LayerStates:
        """See :class:`ModelRunner`."""
        return self.cache.states(sequence.row, stop)

    def _reserve(self, newcomers: list[Sequence], longest: int) -> None:
        """Reserve columns for newcomers' prompts and some tokens, and rows ahead: more rows make the block move."""
        rows = len(self.sequences) + len(newcomers)
        most = max(one.most_columns for one in newcomers)
        columns = max(longest, min(longest + COLUMN_STEP, most), *(one.length for one in self.sequences))
        ahead = 2 * self.cache.rows
        if rows > self.cache.rows > 0 and ahead * round_columns(columns) <= self._positions:
            rows = max(rows, ahead)
        self.cache.reserve(rows, columns, self._positions)

    def _begin(self, sequence: Sequence, row: int) -> None:
        if sequence.states is not None:
            self.cache.put(row, sequence.states)
        elif sequence.leader is not None:
            self.cache.copy(sequence.leader.row, row, sequence.prefix_length)
        sequence.states = sequence.leader = None
        sequence.row = row
        self.sequences.append(sequence)

    @torch.no_grad()
    def _run_prompts(self, sequences: list[Sequence], starts: list[int], first: int) -> torch.Tensor:
        """Logits [n, K] of prompts from their starts on, padded on the right, where nothing attends to padding."""
        device = self._model.device
        rests = [one.request.prompt.after(start) for one, start in zip(sequences, starts, strict=True)]
        lengths = [len(rest) for rest in rests]
        longest = max(lengths)
        start = torch.tensor(starts, device=device)[:, None]  # [n, 1]
        steps = torch.arange(longest, device=device)
        columns = start + steps  # [n, T]
        last = torch.tensor(lengths, device=device)[:, None] - 1
        width = max(starts) + longest
        same = len(set(starts)) == 1
        cache = PassCache(self.cache, (first, len(sequences)), starts[0] if same else columns, width)
        outputs = self._model.model(
            **pad_right(rests, self._pad, device),
            **picture_inputs([one.pictures for one in sequences], device),
            attention_mask=causal_mask(columns, width) if any(starts) else None,
            position_ids=start + torch.minimum(steps, last),  # padding has no position of its own
            cache=cache,
            use_cache=True,
        )
        rows = torch.arange(len(sequences), device=device)
        logits: torch.Tensor = self._model.lm_head(outputs.last_hidden_state[rows, last[:, 0]])
        return logits


class SingleRunner(ModelRunner):
    """A sequence at a time, each with a state of its own, whatever that is.

    Args:
        model: what answers.
        pad_token_id: what stands where nothing does.
    """

    def __init__(self, model: FlashSlothForConditionalGeneration, pad_token_id: int) -> None:
        super().__init__(model, pad_token_id)
        self._caches: dict[int, DynamicCache] = {}
        self._rows = count()

    @torch.no_grad()
    def prefill(self, sequences: list[Sequence]) -> Iterator[tuple[list[Sequence], torch.Tensor]]:
        """See :class:`ModelRunner`."""
        for one in sequences:
            one.row = next(self._rows)
            self.sequences.append(one)
            self._caches[one.row] = DynamicCache(config=self._model.config.text_config)
            device = self._model.device
            inputs = pad_right([one.request.prompt], self._pad, device)
            with _recording(self._model, one):
                logits = self._run(one, **inputs, **picture_inputs([one.pictures], device))
            yield [one], logits

    @torch.no_grad()
    def decode(self, sequences: list[Sequence]) -> torch.Tensor:
        """See :class:`ModelRunner`."""
        tokens = (torch.tensor([[one.sampling.tokens[-1]]], device=self._model.device) for one in sequences)
        return torch.cat([self._run(one, input_ids=token) for one, token in zip(sequences, tokens, strict=True)])

    def release(self, sequence: Sequence, clean: bool = False) -> None:
        """See :class:`ModelRunner`."""
        self.sequences.remove(sequence)
        del self._caches[sequence.row]
        sequence.row = NO_ROW

    def _run(self, sequence: Sequence, **inputs: Any) -> torch.Tensor:
        """Logits [1, K] of a pass."""
        cache = self._caches[sequence.row]
        outputs = self._model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits


def _start(sequence: Sequence) -> int:
    """How many of a sequence's first positions are known."""
    return sequence.known_length if sequence.leader is None else sequence.prefix_length


@contextmanager
def _recording(model: FlashSlothForConditionalGeneration, sequence: Sequence) -> Iterator[None]:
    """Record attention in a pass over one prompt, if its request asks for it."""
    if not sequence.request.attention:
        yield
        return
    with recording_attention(model) as maps:
        yield
    sequence.attention = maps.of()


def _alike(sequences: list[Sequence]) -> Iterator[list[Sequence]]:
    """Sequences that start at one position and whose unknown parts are about equally long, together; short ones first.

    So padding takes no column that the longest prompt does not. One whose attention is kept is alone.
    """
    parts = {id(one): (_start(one), len(one.request.prompt) - _start(one)) for one in sequences}
    some: list[Sequence] = []
    for one in sorted(sequences, key=lambda one: parts[id(one)]):
        if some:
            (first, shortest), (start, length) = parts[id(some[0])], parts[id(one)]
            watched = one.request.attention or some[0].request.attention
            if watched or start != first or length > PADDED_SHARE * shortest:
                yield some
                some = []
        some.append(one)
    if some:
        yield some


def non_finite_answer(
    model: FlashSlothForConditionalGeneration, prompt: Prompt, pictures: ImageFeatures | None, tokens: list[int]
) -> NonFiniteError:
    """The error of an answer with logits that are not finite: it is run again, alone and uncached, to find the layer.

    Args:
        model: that made NaN or infinity of it.
        prompt: what was asked.
        pictures: features of its pictures; None without.
        tokens: of the answer so far.
    """
    if pictures is not None:
        features = pictures.features
        for part, tensor in (("vision encoder", features.last_hidden_state), ("projector", features.pooler_output)):
            if describe_non_finite(tensor):
                return NonFiniteError(
                    f"the model computed NaN or infinity in {model.dtype}: the first such output is the {part}'s, for "
                    f"this picture; load the model in float32; if it stays, the checkpoint is damaged"
                )
    inputs = {
        **pad_right([prompt.followed_by(tokens)], 0, model.device),  # one row: nothing is padded
        **picture_inputs([pictures], model.device),
    }
    return explained(model, lambda: model(**inputs, use_cache=False, logits_to_keep=1))
