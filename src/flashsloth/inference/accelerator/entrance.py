"""Where `Generator` hands jobs over to the engine, and gets them back if the engine is taken.

In: jobs as the generator has them. Out: their tokens; None where the plain path must make them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transformers import DynamicCache

from flashsloth.inference.accelerator.engine import Engine, Queue
from flashsloth.inference.accelerator.feeding import Listed
from flashsloth.inference.accelerator.slots import Answering, Slots, Told
from flashsloth.inference.decoding import Chooser
from flashsloth.inference.kv_cache import LayerStates
from flashsloth.inference.roomy_cache import hold_rows

if TYPE_CHECKING:
    from flashsloth.inference.generator import Generator, Job

ONE_ROW = 1


def tokens_of_one(
    generator: Generator, engine: Engine, job: Job, chooser: Chooser, room: int, cache: DynamicCache | None
) -> Iterator[int] | None:
    """The ids of one answer, each as it is made; as `Generator.tokens`.

    Args:
        generator: remembers beginnings.
        engine: its engine.
        job, chooser, room: what to answer, how, and in how many tokens at most.
        cache: a conversation's keys and values; it grows by what was run. None begins anew.
    """
    answering = Answering(0, job, room)
    slots = engine.borrow(ONE_ROW, answering.columns)
    return None if slots is None else _tokens(generator, engine, slots, answering, chooser, cache)


def _tokens(
    generator: Generator,
    engine: Engine,
    slots: Slots,
    answering: Answering,
    chooser: Chooser,
    cache: DynamicCache | None,
) -> Iterator[int]:
    job = answering.job
    try:
        answering.beginning = generator.recall(job) if cache is None else _held(cache)
        unknown = job.seen is not None and answering.beginning is None
        for token in engine.tokens(slots, answering, chooser, generator.end_ids):
            yield token
            if unknown:
                generator.keep(job, slots.cache.states(answering.row, job.prompt.last_question_start()))
                unknown = False
    finally:
        if cache is not None and answering.ids:
            # The last token was never run, or its step was one too many.
            held = len(job.prompt) + len(answering.ids) - 1
            hold_rows(cache, [slots.cache.states(answering.row, held)])
        engine.give_back(ONE_ROW)


def run_listed(
    generator: Generator, engine: Engine, jobs: Sequence[Job], rooms: Sequence[int], chooser: Chooser
) -> Iterator[tuple[int, list[int]]] | None:
    """Answer all jobs; as `Generator.run`: (place in `jobs`, ids), as they come."""
    if not jobs:
        return None
    answers = [Answering(place, job, room) for place, (job, room) in enumerate(zip(jobs, rooms, strict=True))]
    columns = max(answer.columns for answer in answers)
    told = run_queue(generator, engine, Listed(answers), chooser, len(jobs), columns)
    return None if told is None else whole_answers(told)


def whole_answers(tokens: Iterator[Told]) -> Iterator[tuple[int, list[int]]]:
    """(place, ids) of each answer that gets done."""
    for told in tokens:
        if told.last:
            yield told.answering.place, told.answering.ids


def run_queue(
    generator: Generator, engine: Engine, queue: Queue, chooser: Chooser, rows: int, columns: int
) -> Iterator[Told] | None:
    """Answer a queue of `rows` jobs, or of so many at once, each with about `columns`; None if the engine is taken."""
    slots = engine.borrow(rows, columns)
    return None if slots is None else _run(generator, engine, slots, queue, chooser, rows)


def _run(
    generator: Generator, engine: Engine, slots: Slots, queue: Queue, chooser: Chooser, rows: int
) -> Iterator[Told]:
    try:
        yield from engine.run(slots, queue, generator, chooser, generator.end_ids)
    finally:
        engine.give_back(rows)


def _held(cache: DynamicCache) -> LayerStates | None:
    """What a cache holds, if anything; it is copied where it goes."""
    return [(layer.keys, layer.values) for layer in cache.layers] if cache.get_seq_length() else None


__all__ = ["run_listed", "run_queue", "tokens_of_one", "whole_answers"]
