"""Passes of the model on a CUDA device, replayed as graphs (see `cuda_graph.py`), and the runner that suits a model.

In and out: as for any :class:`~flashsloth.inference.engine.model_runner.ModelRunner`.

    step      a token of each row      recorded when its shape first comes, which then comes at every step
    prompts   of few shapes            recorded by `warm_up` alone; a pass that it has not recorded runs plain, so that
    pictures  1, 2, 4 or 8             no first token waits for a recording

Keys and values stand in one block that is made once (`StaticKVCache`). A step runs so many rows of it, the first ones,
and attends to so many columns; both are rounded up. Unused rows write to the first column of an unused row.

Legend: n rows of a pass, W visible columns, K vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from flashsloth.errors import EngineError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.cuda_graph import (
    CudaGraphs,
    Graphs,
    RecordingCounts,
    Recordings,
    Tensors,
    bucket,
    multiple,
)
from flashsloth.inference.engine.graph_passes import NOT_FINITE, GraphEncoder, GraphPasses
from flashsloth.inference.engine.graph_prompts import PROMPT_ROWS, SHORT_STEP, WIDTH_STEP, PromptPart, PromptShape
from flashsloth.inference.engine.model_runner import BatchedRunner, ModelRunner, SingleRunner, WarmedUp
from flashsloth.inference.engine.scheduler import Sequence
from flashsloth.inference.kv_cache import HeadShapes, StaticKVCache, head_shapes
from flashsloth.inference.picture_cache import WeightsState
from flashsloth.inference.prompt import Prompt, context_of
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

STEP_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a step are rounded up to one of these, or to all rows there are."""
MASKED_ATTENTION = ("sdpa", "one_query")
"""transformers' names of attention that takes masks as runners make them, true where a query may attend to a key."""


class GraphRunner(BatchedRunner):
    """All sequences in one pass, which is replayed where it is recorded.

    One thread at a time calls it. Weights may be written to at any time; where one is replaced, all is recorded again.
    A module that is replaced by another needs a new runner.

    Args:
        model: what answers.
        shapes: of its heads.
        pad_token_id: what stands where nothing does.
        max_rows: sequences that may run at once.
        cache_bytes: for keys and values.
        graphs: records passes on the model's device.
    """

    cache: StaticKVCache

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        shapes: HeadShapes,
        pad_token_id: int,
        max_rows: int,
        cache_bytes: int,
        graphs: Graphs,
    ) -> None:
        super().__init__(model, shapes, pad_token_id)
        positions = cache_bytes // self.position_bytes
        columns = context_of(model) or positions
        self.cache = StaticKVCache(shapes, model.dtype, model.device, positions, max_rows, columns)
        self.recordings = Recordings(graphs)
        self.encode = self._encoder = GraphEncoder(model, self.recordings)
        self._passes = GraphPasses(model, self.cache, self.recordings, pad_token_id)
        self._handed_out: tuple[torch.Tensor, int, torch.Tensor] | None = None  # logits, their version, likeliest
        self._weights = WeightsState(model)
        self._addresses = self._weights.addresses()

    @property
    def watchable(self) -> tuple[nn.Module, nn.Module]:
        """Called once a replayed pass of the encoder, and of the language model, in which no hook is called."""
        return self._encoder.watchable, self._passes.watchable

    @property
    def counts(self) -> RecordingCounts:
        """See :class:`ModelRunner`."""
        return self.recordings.counts

    @torch.no_grad()
    def decode(self, sequences: list[Sequence]) -> torch.Tensor:
        """See :class:`ModelRunner`; a part of those that run, as after a pass that failed, is run plain."""
        if len(sequences) < len(self.sequences):
            return super().decode(sequences)
        positions = [one.position for one in sequences]
        numbers = np.zeros((2, self.cache.most_rows), dtype=np.int64)
        numbers[0, : len(sequences)] = [one.sampling.tokens[-1] for one in sequences]
        numbers[1, : len(sequences)] = positions
        rows, width = bucket(len(sequences), self._step_rows), self._width(max(positions) + 1)
        with self.recordings.lock:
            self._passes.step_inputs.write(numbers.ravel())
            return self._hand_out(self._passes.step(rows, width), len(sequences))

    def greedy_tokens(self, logits: torch.Tensor) -> list[int] | None:
        """See :class:`ModelRunner`."""
        if self._handed_out is None:
            return None
        known, version, tokens = self._handed_out
        if logits is not known or logits._version != version:
            return None
        chosen: list[int] = tokens.tolist()
        return None if NOT_FINITE in chosen else chosen

    @torch.no_grad()
    def warm_up(self, rows: int, columns: int, prompts: Iterable[Prompt] = ()) -> WarmedUp:
        """Record what a load needs, so that nothing is recorded while it is answered.

        Of prompts with as many pictures, what lies between the shortest and the longest is recorded too, whole and from
        the last question on. See :class:`ModelRunner`.
        """
        if self.sequences:
            raise EngineError(f"{len(self.sequences)} answers are being made: warm up before, or after they have ended")
        if not self.cache.positions:
            raise EngineError("there is no memory for keys and values: give the engine more (cache_bytes)")
        self._drop_stale()
        columns = min(columns, self.cache.most_columns, self.cache.positions)
        rows = min(rows, self.cache.most_rows, self.cache.positions // columns)
        self.cache.arrange(rows, columns, 0)
        prompts = list(prompts)
        counts = [count for count in self._step_rows if count <= bucket(rows, self._step_rows)]
        widths = sorted({self._width(stop) for stop in range(1, columns + WIDTH_STEP, WIDTH_STEP)})
        steps = [(count, width) for count in counts for width in widths]
        shapes = sorted({*self._prompt_shapes(rows, prompts)})
        with self.recordings.lock:
            self._passes.step_inputs.write(np.zeros(2 * self.cache.most_rows, dtype=np.int64))
            for count, width in reversed(steps):  # the largest first: the others fit into its memory
                self._passes.step(count, width)
            for shape in reversed(shapes):
                self._passes.prompt_inputs.write(shape, [], 0)
                self._passes.prompts(shape)
        pictures = any(max(prompt.image_index) for prompt in prompts)
        return WarmedUp(
            sum(self._passes.has_step(*step) for step in steps),
            sum(map(self._passes.has_prompts, shapes)),
            self._encoder.warm_up(rows) if pictures else 0,
        )

    def _reserve(self, newcomers: list[Sequence], longest: int) -> None:
        """Reserve all that newcomers, and those who run, may come to need: nothing grows while answers are made."""
        self._drop_stale()
        everyone = [*self.sequences, *newcomers]
        columns = max(longest, *(one.most_columns for one in everyone))
        self.cache.arrange(len(everyone), columns, len(self.sequences))

    def _drop_stale(self) -> None:
        """Drop recordings if weights have moved, which they would read at the old place."""
        addresses = self._weights.addresses()
        if addresses != self._addresses:
            self._addresses = addresses
            self.recordings.clear()

    @torch.no_grad()
    def _run_prompts(self, sequences: list[Sequence], starts: list[int], first: int) -> torch.Tensor:
        """Logits [n, K] of prompts, all from one start on: replayed if their shape is recorded, else plain.

        Where attention is recorded, the pass is plain: hooks cannot see inside a replayed one.
        """
        parts = [PromptPart(one.request.prompt, one.pictures, starts[0]) for one in sequences]
        inputs = self._passes.prompt_inputs
        shape = inputs.shape_of(parts, self.cache.rows - first, self.cache.columns)
        if sequences[0].request.attention or shape is None or not self._passes.has_prompts(shape):
            return super()._run_prompts(sequences, starts, first)
        with self.recordings.lock:
            inputs.write(shape, parts, first)
            return self._hand_out(self._passes.prompts(shape), len(sequences))

    def _hand_out(self, output: Tensors, count: int) -> torch.Tensor:
        """Logits of the first rows, float [count, K], which the next pass may write over."""
        logits, likeliest = (tensor[:count] for tensor in output)
        self._handed_out = logits, logits._version, likeliest
        return logits

    @property
    def _step_rows(self) -> list[int]:
        """Numbers of rows that a step may have."""
        return [rows for rows in STEP_ROWS if rows < self.cache.rows] + [self.cache.rows]

    def _width(self, columns: int) -> int:
        """W of a step that has to see so many columns."""
        return min(multiple(columns, WIDTH_STEP), self.cache.columns)

    def _prompt_shapes(self, rows: int, prompts: list[Prompt]) -> Iterator[PromptShape]:
        """Shapes that prompts like these may need, up to so many at a time."""
        counts = [count for count in PROMPT_ROWS if count <= bucket(rows, PROMPT_ROWS)]
        groups: dict[tuple[int, bool], list[tuple[int, int]]] = {}  # pictures, whether known -> starts and lengths
        for prompt in prompts:
            pictures, stop = max(prompt.image_index), prompt.last_question_start()
            groups.setdefault((pictures, False), []).append((0, len(prompt)))
            if stop:
                groups.setdefault((pictures, True), []).append((stop, len(prompt) - stop))
        for (pictures, _), found in groups.items():
            starts, lengths = zip(*found, strict=True)
            for length in range(min(lengths), multiple(max(lengths), SHORT_STEP) + 1, SHORT_STEP):
                for start in set(starts):
                    for count in counts:
                        shape = self._passes.prompt_inputs.shape(count, length, pictures, start, self.cache.columns)
                        if shape is not None:
                            yield shape


def make_runner(
    model: FlashSlothForConditionalGeneration, pad_token_id: int, config: EngineConfig, cache_bytes: int
) -> ModelRunner:
    """The runner that suits a model, with so many bytes for keys and values.

    :class:`GraphRunner` on CUDA; :class:`BatchedRunner` on any other device, and where graphs are not wanted; and
    :class:`SingleRunner` for language models that cannot answer in batches.
    """
    attention = model.model.language_model.config._attn_implementation
    shapes = head_shapes(model)
    if shapes is None or attention not in MASKED_ATTENTION:
        reason = f"its attention {attention!r} takes no masks of ours" if shapes else "its layers keep another state"
        logger.info("%s runs a sequence at a time: %s", type(model.model.language_model).__name__, reason)
        return SingleRunner(model, pad_token_id)
    if model.device.type == "cuda" and config.cuda_graphs:
        return GraphRunner(model, shapes, pad_token_id, config.max_rows, cache_bytes, CudaGraphs(model.device))
    return BatchedRunner(model, shapes, pad_token_id, cache_bytes)
