"""Prompts and looked-at pictures to token ids: the passes of the model, and what they share.

In: jobs, each one prompt with its pictures' features. Out: the ids of each answer, end token included, padding not.

Jobs about the same pictures share their beginning (system text, `USER:`, pictures). It is run once a group, and its
keys and values serve every question of the group:

    prefix pass    [G, P]   one row a group
    generate       [B, S]   one row a job, its group's cache before it

Legend: G groups, B jobs, P longest shared beginning, S longest rest, N pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from flashsloth.inference.errors import PromptError
from flashsloth.inference.looking import count_pictures, join_features
from flashsloth.inference.options import Options
from flashsloth.inference.prompt import Prompt, pad_left, shared_beginning, split
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

ROWS_AT_A_TIME = 32
"""Jobs of one batch: beyond, a step costs as much more as it does more."""


@dataclass(frozen=True)
class Job:
    """One question to answer.

    Attributes:
        prompt: its prompt.
        features: what the model sees in its pictures; None without.
        group: the same number for jobs about the same pictures.
    """

    prompt: Prompt
    features: FlashSlothImageFeatures | None
    group: int


class Generator:
    """A model and its tokenizer's special ids: runs jobs one at a time (to be streamed), or in batches."""

    def __init__(self, model: FlashSlothForConditionalGeneration, tokenizer: Any) -> None:
        self.model = model
        stored = model.generation_config.eos_token_id
        stored_ids = stored if isinstance(stored, list) else [stored]
        self.end_ids = sorted({tokenizer.eos_token_id, *stored_ids} - {None})
        self.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.context: int | None = getattr(model.config.text_config, "max_position_embeddings", None)

    def room(self, prompt: Prompt, options: Options) -> int:
        """The most tokens that an answer to `prompt` may have.

        Raises:
            PromptError: if the prompt leaves no room in the model's context.
        """
        if self.context is None:
            return options.max_new_tokens
        left = self.context - len(prompt)
        if left < 1:
            visual = sum(place > 0 for place in prompt.image_index)
            raise PromptError(
                f"the prompt has {len(prompt):,} tokens ({visual:,} of them for pictures), and this model's context is "
                f"{self.context:,} with at least one for the answer: shorten the text, or give fewer pictures"
            )
        return min(options.max_new_tokens, left)

    def run_one(self, job: Job, options: Options, cache: Any = None, **hooks: Any) -> list[int]:
        """Answer one job; `cache` may hold its prompt's beginning, `hooks` are a streamer and stopping criteria."""
        return self._generate(
            [job], self._tensors([job.prompt]), self.room(job.prompt, options), options, cache, **hooks
        )[0]

    def run(self, jobs: Sequence[Job], options: Options) -> Iterator[tuple[int, list[int]]]:
        """Answer all jobs, those alike together: (place in `jobs`, ids), as they come."""
        rooms = [self.room(job.prompt, options) for job in jobs]  # first: a mistake costs no work
        longest: dict[int, int] = {}
        for job in jobs:
            longest[job.group] = max(longest.get(job.group, 0), len(job.prompt))
        keys = [(room, longest[job.group], job.group) for room, job in zip(rooms, jobs, strict=True)]
        for batch in _batches(sorted(range(len(jobs)), key=keys.__getitem__), rooms):
            answers = self._run_batch([jobs[place] for place in batch], rooms[batch[0]], options)
            yield from zip(batch, answers, strict=True)

    def new_cache(self) -> DynamicCache | None:
        """An empty cache whose beginning can be shared and cut; None where the model keeps another kind of state."""
        cache = DynamicCache(config=self.model.config.text_config)
        plain = all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)
        return cache if plain else None

    def _run_batch(self, jobs: list[Job], room: int, options: Options) -> list[list[int]]:
        """Answers of jobs with the same room, sharing beginnings where that saves anything."""
        groups: dict[int, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.group, []).append(job)
        cache = self.new_cache() if len(jobs) > len(groups) else None
        if cache is None:
            return self._generate(jobs, self._tensors([job.prompt for job in jobs]), room, options, None)
        shared = {group: shared_beginning([job.prompt for job in members]) for group, members in groups.items()}
        heads = self._tensors([split(members[0].prompt, shared[group])[0] for group, members in groups.items()])
        self._fill(cache, [members[0] for members in groups.values()], heads)
        rows = {group: row for row, group in enumerate(groups)}
        row_of_job = torch.tensor([rows[job.group] for job in jobs], device=self.model.device)
        cache.batch_select_indices(row_of_job)
        rests = self._tensors([split(job.prompt, shared[job.group])[1] for job in jobs])
        inputs = {name: torch.cat([heads[name][row_of_job], rests[name]], dim=1) for name in rests}
        return self._generate(jobs, inputs, room, options, cache)

    @torch.no_grad()
    def _fill(self, cache: DynamicCache, jobs: list[Job], heads: dict[str, torch.Tensor]) -> None:
        """Run the shared beginnings of jobs, one of each group, for their keys and values alone."""
        if heads["input_ids"].shape[1]:
            self.model.model(**heads, **self._pictures(jobs), past_key_values=cache, use_cache=True)

    def _generate(
        self, jobs: list[Job], inputs: dict[str, torch.Tensor], room: int, options: Options, cache: Any, **hooks: Any
    ) -> list[list[int]]:
        """One call of transformers' `generate`: the new ids of every row, up to its end token."""
        given = {} if cache is None else {"past_key_values": cache}
        sequences = self.model.generate(
            **inputs,
            **self._pictures(jobs),
            **given,
            **options.generation_arguments,
            **hooks,
            max_new_tokens=room,
            eos_token_id=self.end_ids,
            pad_token_id=self.pad_token_id,
            return_dict_in_generate=False,
        )
        return [self._until_end(row) for row in sequences[:, inputs["input_ids"].shape[1] :].tolist()]

    def _pictures(self, jobs: list[Job]) -> dict[str, Any]:
        """The model's inputs for the pictures of a batch's rows, in order."""
        parts = [job.features for job in jobs if job.features is not None]
        if not parts:
            return {}
        rows = [row for row, job in enumerate(jobs) for _ in range(count_pictures(job.features))]
        image_row = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        return {"mm_encoder_outputs": {"image": join_features(parts)}, "image_row": image_row}

    def _tensors(self, prompts: list[Prompt]) -> dict[str, torch.Tensor]:
        return pad_left(prompts, self.pad_token_id, self.model.device)

    def _until_end(self, ids: list[int]) -> list[int]:
        """The ids up to the first end token, which is kept; after it `generate` pads."""
        ends = (place for place, token_id in enumerate(ids) if token_id in self.end_ids)
        return ids[: next(ends, len(ids)) + 1]


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
