"""A batch on several processes or machines: the same lines, answered by actors of Ray Data.

In: lines that have no answer yet, which a task of Ray's reads from the file while others are answered. Out: each line
and what is written down for it, which this process writes: so a run may be resumed with Ray or without, whichever began
it. What a killed actor had under way is given to another. The file, its pictures and the model must stand under the
same paths on every machine. Needs `flashsloth[scale]`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from flashsloth.errors import EngineError, FlashSlothError
from flashsloth.inference.options import AnswerOptions
from flashsloth.serving.batch import Answered, Answerer
from flashsloth.serving.batch_answerers import SimpleAnswerer
from flashsloth.serving.batch_lines import BatchError, BatchLine, BatchSource
from flashsloth.serving.batch_output import BatchOutput
from flashsloth.serving.config import ServeConfig

MOST_AT_ONCE = 256
"""Lines that an actor is given at once."""
SHARES = 4
"""Times that each actor is given lines, at least, where there are few."""
MOST_BYTES = 64 << 20
"""Of lines that are given at once, but for a single one."""
READ_CPUS = 0.25
"""Of the task that reads: on two processors it must leave room for an actor, or Ray waits for ever."""
CHUNK = "chunk"
"""The one column of Ray's tables: a row is what is given at once, as JSON."""


@dataclass(frozen=True)
class ActorSettings:
    """What each actor answers with.

    Attributes:
        model, adapter, device, dtype, quantize: see `load_flashsloth`.
        options: of answers to simple lines.
        config: of answers to OpenAI's lines.
        actors: how many there are.
        cpus, gpus: of each.
    """

    model: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    options: AnswerOptions = field(default_factory=AnswerOptions)
    config: ServeConfig = field(default_factory=ServeConfig)
    actors: int = 1
    cpus: float = 0.5
    gpus: float = 0.0

    def answerer(self, source: BatchSource) -> Answerer:
        """Who answers, in this process."""
        from flashsloth.evaluation.answerer import load_flashsloth
        from flashsloth.serving.batch_requests import RequestAnswerer

        given = {name: getattr(self, name) for name in ("adapter", "device", "dtype", "quantize")}
        model = load_flashsloth(self.model, **given)
        if source.is_openai:
            return RequestAnswerer(model, self.config)
        return SimpleAnswerer(model, source, self.options)


class RayAnswerer:
    """Lets actors answer; a cluster is found as `ray.init` finds it, or made of this machine.

    Args:
        source: whose lines they are.
        output: which knows what is answered.
        settings: of the actors.

    Raises:
        BatchError: where there is no such model.
        EngineError: where it cannot be loaded there.
    """

    def __init__(self, source: BatchSource, output: BatchOutput, settings: ActorSettings) -> None:
        source = source.elsewhere()
        self._source, self._output, self._settings = source, output, settings
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        resources = {"num_cpus": settings.cpus, "num_gpus": settings.gpus}
        describe = ray.remote(**resources)(lambda: settings.answerer(source).describe())
        with _told_plainly():
            self._described: dict[str, Any] = ray.get(describe.remote())

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        return self._described

    def answers(self, lines: Iterator[BatchLine]) -> Iterator[Answered]:
        """See :class:`Answerer`; lines are counted here, and read once more by Ray's task."""
        count, settings = sum(1 for _ in lines), self._settings
        if not count:
            return
        context = DataContext.get_current()
        context.target_max_block_size = 1  # a row a block: each is given to whichever actor is free
        context.enable_progress_bars = False
        at_once = min(MOST_AT_ONCE, math.ceil(count / (SHARES * settings.actors)))
        asked = ray.data.read_datasource(
            _Lines(self._source, self._output, at_once), ray_remote_args={"num_cpus": READ_CPUS}
        )
        answered = asked.map_batches(
            _Actor,
            fn_constructor_args=(self._source, settings),
            batch_size=None,
            compute=ActorPoolStrategy(size=settings.actors),
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
        )
        with _told_plainly():
            for row in answered.iter_rows():
                for line, written in json.loads(row[CHUNK]):
                    yield _line_of(line), written


@contextmanager
def _told_plainly() -> Iterator[None]:
    """A block whose failures on Ray are one line.

    Raises:
        BatchError: where what failed there is a mistake of the user's.
        EngineError: else.
    """
    try:
        yield
    except RayError as error:
        reason = getattr(error, "cause", None) or error
        said = str(reason).strip().splitlines()[-1]
        if isinstance(reason, FlashSlothError) and isinstance(reason, ValueError):
            raise BatchError(said) from error
        raise EngineError(f"the batch failed on Ray ({type(reason).__name__}: {said})") from error


class _Lines(Datasource):
    """Reads what has no answer, in one task that goes on while others work."""

    def __init__(self, source: BatchSource, output: BatchOutput, at_once: int) -> None:
        super().__init__()
        self._source, self._answered, self._at_once = source, output.answered, at_once

    def estimate_inmemory_data_size(self) -> int | None:
        """Ray's question how much it is: nobody knows before it is read."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """The one task."""
        source, answered, at_once = self._source, self._answered, self._at_once

        def read() -> Iterable[pa.Table]:
            lines = (line for line in source if line.mistake is None and answered.find(line.key) != line.digest)
            for chunk in _chunks(lines, at_once):
                yield pa.table({CHUNK: [chunk]})

        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(read, unknown)]


def _chunks(lines: Iterable[BatchLine], at_once: int) -> Iterator[str]:
    """Lines as JSON, so many together, or fewer where they are long."""
    texts: list[str] = []
    size = 0
    for line in lines:
        text = json.dumps([line.place, line.id, line.asked, line.digest.hex()])
        if texts and (len(texts) == at_once or size + len(text) > MOST_BYTES):
            yield f"[{','.join(texts)}]"
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    if texts:
        yield f"[{','.join(texts)}]"


def _line_of(told: list[Any]) -> BatchLine:
    place, identity, asked, digest = told
    return BatchLine(place, identity, asked, bytes.fromhex(digest))


class _Actor:
    """One model in a process of Ray's."""

    def __init__(self, source: BatchSource, settings: ActorSettings) -> None:
        self._answerer = settings.answerer(source)

    def __call__(self, table: dict[str, Any]) -> dict[str, list[str]]:
        """The answers to each row's lines, without what was asked."""
        answered = []
        for text in table[CHUNK]:
            lines = map(_line_of, json.loads(text))
            found: list[Any] = [
                ([line.place, line.id, {}, line.digest.hex()], row) for line, row in self._answerer.answers(lines)
            ]
            answered.append(json.dumps(found))
        return {CHUNK: answered}
