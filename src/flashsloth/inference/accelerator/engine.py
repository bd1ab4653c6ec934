"""One answer as it is made, or a queue of jobs kept running in all rows of the cache (continuous batching).

In: jobs. Out: token ids, those of the plain path.

    while there is anything to do:
        let jobs of the queue into free rows      their prompts read together
        make a step for everyone
        hand out the tokens of the step before    who has ended leaves, and the next job takes the row

Two caches are kept: one of a row for the single answer, one of many rows for queues. Who asks while one is lent gets
none, and goes the plain way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch

from flashsloth.inference.accelerator.passes import Passes
from flashsloth.inference.accelerator.prompt_rows import PromptRows, move
from flashsloth.inference.accelerator.recorded import CompiledPass, RecordedPass
from flashsloth.inference.accelerator.settings import AcceleratorSettings, bucket
from flashsloth.inference.accelerator.slot_cache import SlotCache
from flashsloth.inference.accelerator.slots import Answering, BrokenAnswer, Slots, Told
from flashsloth.inference.decoding import Chooser
from flashsloth.inference.engine.broken import broken_answer
from flashsloth.inference.kv_cache import LayerStates, head_shapes, position_bytes
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

if TYPE_CHECKING:
    from flashsloth.inference.generator import Generator, Job
    from flashsloth.inference.vision import ImageEncoder

logger = logging.getLogger(__name__)

MASKED_ATTENTION = ("sdpa", "one_query")
"""transformers' names of attention that takes the passes' own masks, true where a query sees a key."""


class Queue(Protocol):
    """Where jobs come from."""

    def take(self, most: int, *, wait: bool) -> list[Answering]:
        """At most so many of the next answers to make; with `wait`, at least one where any are left."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        ...


class Memory(Protocol):
    """What is known of the beginnings of prompts."""

    def recall(self, job: Job) -> LayerStates | None:
        """Keys and values of all that stands before the last question, where they are known."""
        ...

    def keep(self, job: Job, states: LayerStates) -> None:
        """Remember them."""
        ...


class Engine:
    """A model's passes on its device, and the caches they work on.

    Args:
        model: ready to answer; :func:`can_accelerate` must say so.
        pad_token_id: what stands where nothing does; None for any.
        settings: shapes and habits; None for what suits the device.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        pad_token_id: int | None,
        settings: AcceleratorSettings | None = None,
    ) -> None:
        shapes = head_shapes(model)
        assert shapes is not None, "can_accelerate says whether a model fits"
        self.settings = AcceleratorSettings.of(model.device) if settings is None else settings
        self.device = model.device
        self._model, self._dtype, self._shapes = model, model.dtype, shapes
        passes = Passes(model)
        self.passes = {
            name: CompiledPass(name, getattr(passes, name), self.settings) for name in ("look", "read", "step")
        }
        self.look = RecordedPass(self.passes["look"], (), self.settings.records)
        filler = 0 if pad_token_id is None else pad_token_id  # nothing sees it: any id will do
        self._prompts = PromptRows(model.config, self.settings, filler, model.dtype, model.device)
        self._caches: dict[bool, Slots] = {}  # whether of many rows -> cache
        self._lent: set[bool] = set()
        self._lock = threading.Lock()

    @property
    def compile_seconds(self) -> float:
        """Spent on compiling so far."""
        return sum(one.seconds for one in self.passes.values())

    @property
    def language_passes(self) -> list[RecordedPass]:
        """The passes of the language model over all caches that there are, for who wants to watch them."""
        return [one for slots in self._caches.values() for one in (slots.read, slots.step)]

    @property
    def recorded(self) -> int:
        """How many passes of some shape have been recorded."""
        return sum(one.recorded for one in (self.look, *self.language_passes))

    @torch.no_grad()
    def image_features(self, pixels: torch.Tensor) -> FlashSlothImageFeatures:
        """As the model's `get_image_features`, in passes of few shapes: pixels float [N, W, 3, size, size]."""
        sizes = self.settings.looking_pictures
        parts = []
        for some in pixels.split(sizes[-1]):
            count = bucket(len(some), sizes)
            padded = torch.cat([some, some[:1].expand(count - len(some), *some.shape[1:])])
            features, tokens = self.look(move(padded, self.device).to(self._dtype))
            parts.append((features[: len(some)].clone(), tokens[: len(some)].clone()))
        features, tokens = (
            torch.cat(tensors) if len(parts) > 1 else tensors[0] for tensors in zip(*parts, strict=True)
        )
        return FlashSlothImageFeatures(last_hidden_state=features, pooler_output=tokens)

    def borrow(self, rows: int, columns: int) -> Slots | None:
        """The cache for one row, or the one for many, with room for `columns`; None while it is lent already.

        Who borrows gives back.
        """
        many = rows > 1
        with self._lock:
            if many in self._lent:
                logger.info("another answer is being made: this one goes the plain way")
                return None
            self._lent.add(many)
        try:
            return self._fitting(many, rows, columns)
        except BaseException:
            self.give_back(rows)
            raise

    def give_back(self, rows: int) -> None:
        """End the loan of what was borrowed for `rows`, in whatever state it is."""
        many = rows > 1
        if many in self._caches:
            self._caches[many].clear()
        with self._lock:
            self._lent.discard(many)

    def tokens(self, slots: Slots, answering: Answering, chooser: Chooser, end_ids: Collection[int]) -> Iterator[int]:
        """The ids of one answer, as they become known."""
        slots.admit([answering], chooser)
        while not slots.idle:
            started = slots.going
            if started:
                slots.make_step(chooser)
            for told in self._settle(slots, self.settings.lag if started else 0, end_ids):
                yield told.token
            if answering.done:
                return

    def run(
        self, slots: Slots, queue: Queue, memory: Memory, chooser: Chooser, end_ids: Collection[int]
    ) -> Iterator[Told]:
        """Answer a queue: every token, as it becomes known."""
        waiting: list[Answering] = []
        while True:
            if not waiting and not queue.exhausted and slots.free:
                most = min(slots.free, self.settings.reading_rows[-1])
                waiting = queue.take(most, wait=slots.idle)
            if waiting and slots.idle and not slots.takes(waiting[0]):
                slots = self._fitting(slots.many, slots.cache.rows, max(one.columns for one in waiting))
            entering = [one for one in waiting if slots.takes(one)][: slots.free]
            waiting = [one for one in waiting if one not in entering]
            if entering:
                self._admit(slots, entering, memory, chooser)
            started = slots.going
            if started:
                slots.make_step(chooser)
            yield from self._settle(slots, self.settings.lag if started else 0, end_ids)
            if slots.idle and not waiting and queue.exhausted:
                return

    def _settle(self, slots: Slots, lag: int, end_ids: Collection[int]) -> list[Told]:
        """Tokens that are known now.

        Raises:
            NonFiniteError: where the model computed NaN or infinity.
        """
        try:
            return slots.settle(lag, end_ids)
        except BrokenAnswer as broken:
            who = broken.answering
            raise broken_answer(self._model, who.job.prompt, who.job.seen, who.ids) from None

    def _admit(self, slots: Slots, newcomers: list[Answering], memory: Memory, chooser: Chooser) -> None:
        """Let jobs in; of those about the same pictures one goes first, and the others begin with what it left."""
        first: list[Answering] = []
        others: list[Answering] = []
        groups: set[int] = set()
        for who in newcomers:
            who.beginning = memory.recall(who.job)
            leads = who.job.shared and who.beginning is None and who.job.group not in groups
            if leads:
                groups.add(who.job.group)
            (others if who.job.group in groups and not leads else first).append(who)
        slots.admit(first, chooser)
        for who in first:
            if who.job.group in groups:
                memory.keep(who.job, slots.cache.states(who.row, who.job.prompt.last_question_start()))
        if others:
            for who in others:
                who.beginning = memory.recall(who.job)
            slots.admit(others, chooser)

    def _fitting(self, many: bool, rows: int, columns: int) -> Slots:
        """The cache that is there, if it is large enough, or a larger one in its place."""
        held = self._caches.get(many)
        columns = self.settings.width(columns + 1)
        if held is not None:
            if held.cache.columns >= columns and held.cache.rows >= rows:
                return held
            rows, columns = max(rows, held.cache.rows), max(columns, held.cache.columns)
            del self._caches[many], held  # before the new one is made
        rows = self._affordable(rows, columns) if many else 1
        cache = SlotCache(self._shapes, rows, columns, self._dtype, self.device)
        passes = self.passes["read"], self.passes["step"]
        slots = Slots(*passes, self._prompts, cache, self.settings, self.device, many)
        self._caches[many] = slots
        return slots

    def _affordable(self, rows: int, columns: int) -> int:
        """Rows for `rows` answers at once; fewer where memory does not suffice."""
        sizes = self.settings.slots
        wanted = bucket(rows, sizes)
        if self.device.type != "cuda":
            return wanted
        free = torch.cuda.mem_get_info(self.device)[0]
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        most = int(free * self.settings.memory_share / (columns * position_bytes(self._shapes, self._dtype))) - 1
        fitting = max((size for size in sizes if size <= min(wanted, most)), default=sizes[0])
        if fitting < wanted:
            logger.info("memory for %d answers at once, of %d wished for", fitting, wanted)
        return fitting


def can_accelerate(model: FlashSlothForConditionalGeneration) -> bool:
    """Whether a model's language model keeps keys and values alone, and attends by masks as the passes make them."""
    attention = model.model.language_model.config._attn_implementation
    if attention not in MASKED_ATTENTION:
        logger.warning("attention %r takes no mask of ours: answers are made by the plain path", attention)
        return False
    if head_shapes(model) is None:
        kind = type(model.model.language_model).__name__
        logger.warning("%s keeps more than keys and values: answers are made by the plain path", kind)
        return False
    return True


def accelerate(
    generator: Generator, image_encoder: ImageEncoder, settings: AcceleratorSettings | None = None
) -> Engine | None:
    """Let a generator and an image encoder answer through an engine; None, and a warning, where the model does not fit.

    Args:
        generator, image_encoder: of the same model, which is on its device, as fast as it gets.
        settings: None for what suits the device.
    """
    model: Any = generator.model
    if not can_accelerate(model):
        return None
    engine = Engine(model, generator.pad_token_id, settings)
    generator.engine = engine
    image_encoder.encode = engine.image_features
    return engine


__all__ = ["Engine", "Memory", "Queue", "accelerate", "can_accelerate"]
