"""Prompts and looked-at pictures to token ids: the passes of the model, and what they share.

In: jobs, each one prompt with what the model sees in its pictures. Out: the ids of each answer, end token included.

Jobs about the same pictures share their beginning (system text, `USER:`, pictures). It is run once a group, or taken
from the picture cache, and its keys and values serve every question of the group:

    beginnings     [G, P]   one row a group
    decoding       [B, S]   one row a job, its group's keys and values before it

Legend: G groups, B jobs, P longest shared beginning, S longest rest, N pictures.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from flashsloth.inference.decoding import Chooser, Decoding
from flashsloth.inference.kv_cache import LayerStates, bytes_of
from flashsloth.inference.options import Options
from flashsloth.inference.picture_cache import PictureCache, state_of
from flashsloth.inference.prompt import (
    Prompt,
    context_of,
    end_ids_of,
    pad_id_of,
    pad_left,
    shared_beginning,
    split,
    token_limit,
)
from flashsloth.inference.roomy_cache import hold_rows, roomy_cache, states_of
from flashsloth.inference.vision import ImageFeatures, picture_inputs
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.non_finite import require_finite

if TYPE_CHECKING:
    from flashsloth.inference.accelerator.engine import Engine

ROWS_AT_A_TIME = 32
"""Jobs of one batch: beyond, a step costs as much more as it does more."""


@dataclass(frozen=True)
class Job:
    """One question to answer.

    Attributes:
        prompt: its prompt.
        seen: what the model sees in its pictures; None without.
        group: the same number for jobs about the same pictures.
        shared: whether another job is known to be about the same pictures.
    """

    prompt: Prompt
    seen: ImageFeatures | None
    group: int = 0
    shared: bool = False


class Generator:
    """A model and its tokenizer's special ids: runs jobs one at a time, token by token, or in batches."""

    def __init__(self, model: FlashSlothForConditionalGeneration, tokenizer: Any, pictures: PictureCache) -> None:
        self.model = model
        self.end_ids, self.pad_token_id = end_ids_of(model, tokenizer), pad_id_of(tokenizer)
        self.context = context_of(model)
        self.engine: Engine | None = None  # on an accelerator; see `accelerator/`
        self._pictures = pictures
        self._suppressed = sorted(model.generation_config.suppress_tokens or ())

    def room(self, prompt: Prompt, options: Options) -> int:
        """The most tokens that an answer to `prompt` may have.

        Raises:
            PromptError: if the prompt leaves no room in the model's context.
        """
        return token_limit(prompt, self.context, options.max_new_tokens)

    def tokens(
        self, job: Job, options: Options, cache: DynamicCache | None = None, chooser: Chooser | None = None
    ) -> Iterator[int]:
        """The ids of one answer, each as it is made; who stops reading stops the model.

        Args:
            job: what to answer.
            options: how.
            cache: keys and values of the prompt's beginning, from :meth:`begin`; it grows. None begins anew.
            chooser: what chooses tokens; None for what the options say.
        """
        room = self.room(job.prompt, options)
        chooser = self.chooser(options) if chooser is None else chooser
        if self.engine is not None:
            from flashsloth.inference.accelerator.entrance import tokens_of_one

            if (tokens := tokens_of_one(self, self.engine, job, chooser, room, cache)) is not None:
                yield from tokens
                return
        kept = job.prompt.last_question_start()
        if cache is None:
            cache = self.begin(job)
        worth_keeping = cache is not None and job.seen is not None and cache.get_seq_length() == 0
        decoding = self._decoding([job], self._tensors([job.prompt]), cache)
        for step in decoding.steps(chooser, self.end_ids, room):
            yield step[0][1]
            if worth_keeping:
                self._remember(job, kept, states_of(decoding.cache, 0, 0, kept))
                worth_keeping = False

    def run_one(self, job: Job, options: Options) -> list[int]:
        """The ids of one answer."""
        return list(self.tokens(job, options))

    def run(self, jobs: Sequence[Job], options: Options) -> Iterator[tuple[int, list[int]]]:
        """Answer all jobs, those alike together: (place in `jobs`, ids), as they come."""
        rooms = [self.room(job.prompt, options) for job in jobs]  # first: a mistake costs no work
        if self.engine is not None:
            from flashsloth.inference.accelerator.entrance import run_listed

            if (whole := run_listed(self, self.engine, jobs, rooms, self.chooser(options))) is not None:
                yield from whole
                return
        longest: dict[int, int] = {}
        for job in jobs:
            longest[job.group] = max(longest.get(job.group, 0), len(job.prompt))
        keys = [(room, longest[job.group], job.group) for room, job in zip(rooms, jobs, strict=True)]
        for batch in _batches(sorted(range(len(jobs)), key=keys.__getitem__), rooms):
            answers = self._run_batch([jobs[place] for place in batch], rooms[batch[0]], options)
            yield from zip(batch, answers, strict=True)

    def begin(self, job: Job) -> DynamicCache | None:
        """A cache with what is remembered of a job's beginning; None where the model keeps another kind of state."""
        cache = roomy_cache(self.model.config.text_config)
        if cache is not None and (states := self._remembered(job, job.prompt.last_question_start())) is not None:
            hold_rows(cache, [states])
        return cache

    def recall(self, job: Job) -> LayerStates | None:
        """Keys and values of all that stands before a job's last question, where they are known."""
        return self._remembered(job, job.prompt.last_question_start())

    def keep(self, job: Job, states: LayerStates) -> None:
        """Remember keys and values of all that stands before a job's last question."""
        self._remember(job, job.prompt.last_question_start(), states)

    def _run_batch(self, jobs: list[Job], room: int, options: Options) -> list[list[int]]:
        """Answers of jobs with the same room, sharing beginnings where that saves anything."""
        groups: dict[int, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.group, []).append(job)
        shared = {group: shared_beginning([job.prompt for job in members]) for group, members in groups.items()}
        firsts = [(members[0], shared[group]) for group, members in groups.items()]
        known = any(self._remembered(job, place) is not None for job, place in firsts)
        cache = roomy_cache(self.model.config.text_config) if known or len(jobs) > len(groups) else None
        if cache is None:
            decoding = self._decoding(jobs, self._tensors([job.prompt for job in jobs]), None)
        else:
            heads = self._tensors([split(job.prompt, place)[0] for job, place in firsts])
            hold_rows(cache, self._beginnings(firsts))
            rows = {group: row for row, group in enumerate(groups)}
            row_of_job = torch.tensor([rows[job.group] for job in jobs], device=self.model.device)
            cache.batch_select_indices(row_of_job)
            rests = self._tensors([split(job.prompt, shared[job.group])[1] for job in jobs])
            inputs = {name: torch.cat([heads[name][row_of_job], rests[name]], dim=1) for name in rests}
            decoding = self._decoding(jobs, inputs, cache)
        answers: list[list[int]] = [[] for _ in jobs]
        for step in decoding.steps(self.chooser(options), self.end_ids, room):
            for row, token in step:
                answers[row].append(token)
        return answers

    def _beginnings(self, firsts: list[tuple[Job, int]]) -> list[LayerStates]:
        """Keys and values of the first columns of some jobs: remembered, or run now, all that are new in one pass."""
        states = [self._remembered(job, place) for job, place in firsts]
        new = [(job, place) for (job, place), found in zip(firsts, states, strict=True) if found is None]
        made = iter(self._run_beginnings(new) if new else [])
        return [next(made) if found is None else found for found in states]

    @torch.no_grad()
    def _run_beginnings(self, firsts: list[tuple[Job, int]]) -> list[LayerStates]:
        cache = roomy_cache(self.model.config.text_config)
        assert cache is not None
        inputs = self._tensors([split(job.prompt, place)[0] for job, place in firsts])
        longest = inputs["input_ids"].shape[1]
        if not longest:
            return [[] for _ in firsts]
        given: dict[str, Any] = {**inputs, **picture_inputs([job.seen for job, _ in firsts], self.model.device)}
        states = self.model.model(**given, cache=cache, use_cache=True).last_hidden_state
        require_finite(states, self.model, lambda: self.model.model(**given, use_cache=False))
        made = []
        for row, (job, place) in enumerate(firsts):
            states = states_of(cache, row, longest - place, longest)
            if job.seen is not None:
                self._remember(job, place, states)
            made.append(states)
        return made

    def _remembered(self, job: Job, place: int) -> LayerStates | None:
        """Keys and values of the first `place` columns of a job's prompt, where they are known."""
        return None if job.seen is None else self._pictures.get(self._key(job, place))

    def _remember(self, job: Job, place: int, states: LayerStates) -> None:
        self._pictures.put(self._key(job, place), states, bytes_of(states))

    def _key(self, job: Job, place: int) -> Hashable:
        assert job.seen is not None
        return "beginning", state_of(self.model), job.seen.identity, tuple(job.prompt.columns(0, place))

    def _decoding(self, jobs: list[Job], inputs: dict[str, torch.Tensor], cache: DynamicCache | None) -> Decoding:
        cuttable = cache if cache is not None else roomy_cache(self.model.config.text_config)
        chosen = DynamicCache(config=self.model.config.text_config) if cuttable is None else cuttable
        pictures = picture_inputs([job.seen for job in jobs], self.model.device)
        return Decoding(self.model, inputs, pictures, chosen, drops_rows=cuttable is not None)

    def chooser(self, options: Options) -> Chooser:
        """What takes or draws the next tokens."""
        return Chooser(options, self._suppressed)

    def _tensors(self, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
        return pad_left(prompts, self.pad_token_id, self.model.device)


def _batches(order: list[int], rooms: list[int]) -> Iterator[list[int]]:
    """Cut `order` where the room changes and where a batch is full."""
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) == ROWS_AT_A_TIME or rooms[place] != rooms[batch[0]]):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
