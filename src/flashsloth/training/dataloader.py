"""What a stage learns from, ready for Trainer: conversations written down by the processor, batched, in steps.

In: a stage and its processor. Out: a dataset of samples with bad ones left out, each encoded in the worker that read
it, so that what is wrong with it is known there and by its name; batches, which are only put together from those,
padded on the right, as the model's forward takes them; and micro-batches whose order depends on seed and epoch alone,
of which each process has its own, without those that a resumed run has seen.

Legend: N pictures, W views a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from flashsloth.model.chat_template import PLAIN_TEMPLATE
from flashsloth.model.configuration_flashsloth import views_of
from flashsloth.model.conversation import Message, pictures_of
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor
from flashsloth.training.data import (
    BAD_SAMPLES_FILE,
    BadSamples,
    DataError,
    GoodSamples,
    Joined,
    StepBatchSampler,
    conversations,
)
from flashsloth.training.data.sample import BadSampleError, Sample, Where, named
from flashsloth.training.data.workers import WorkerPool
from flashsloth.training.encoder_training import PATCHES_KEY
from flashsloth.training.metrics import IDS_KEY, kinds_of_answers
from flashsloth.training.packing import Row, fill_rows, join_questions, join_samples, pad_packed, pad_rows
from flashsloth.training.recipe import StageRun
from flashsloth.training.stages import Stage


@dataclass
class EncodedSample:
    """One sample, ready to be batched.

    Attributes:
        row: the processor's lists, one number a token; with `branch` and `position_ids` where questions were joined.
        pixels: float32 [N, W, 3, size, size], its pictures; None for none.
        patches: what each patch of the one picture shows, where that was asked for.
        where: its place in the data, where it has one.
    """

    row: Row
    pixels: np.ndarray | None = None
    patches: dict[str, np.ndarray] | None = None
    where: Where | None = None


def split_turns(messages: list[Message]) -> list[list[Message]]:
    """A conversation's turns as conversations of their own, each with the pictures of the first question in front."""
    system = messages[:1] if messages[0]["role"] == "system" else []
    turns = messages[len(system) :]
    first = turns[0]["content"]
    pictures = [] if isinstance(first, str) else [part for part in first if part["type"] == "image"]
    alone = []
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        content = question["content"]
        words = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [part for part in words if part["type"] == "text"]
        alone.append([*system, {"role": "user", "content": [*pictures, *texts]}, answer])
    return alone


class SampleEncoder:
    """Writes samples down for a stage. Loss stands on the answers alone."""

    def __init__(self, processor: FlashSlothProcessor, stage: Stage) -> None:
        self.processor = processor
        self.max_length = stage.max_length
        self.template = PLAIN_TEMPLATE if stage.template == "plain" else None
        self.space_before_queries = stage.template == "published_chat"

    def __call__(self, sample: Sample) -> EncodedSample:
        """A sample, written down, its pictures opened.

        Raises:
            BadSampleError: if it is too long, or nothing in it is supervised.
            PictureError: if a picture cannot be opened.
        """
        row = self.text(sample)
        pictures = pictures_of(sample.messages)
        pixels = None
        if pictures:
            pixels = self.processor.image_processor(images=pictures, resolution=sample.resolution, return_tensors="np")[
                "pixel_values"
            ]
        return EncodedSample(row, pixels, sample.patches, sample.where)

    def text(self, sample: Sample) -> Row:
        """A sample's row alone; raises BadSampleError as the whole does, and opens no picture."""
        questions = split_turns(sample.messages) if sample.independent else [sample.messages]
        encoded = self.processor.apply_chat_template(
            questions,
            chat_template=self.template,
            tokenize=True,
            return_dict=True,
            return_labels=True,
            padding=False,
            return_pixel_values=False,
            resolution=sample.resolution,
            space_before_queries=self.space_before_queries,
        )
        del encoded["attention_mask"]
        rows = [dict(zip(encoded, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        longest = max(len(row["input_ids"]) for row in rows)
        if longest > self.max_length:
            raise BadSampleError(f"has {longest} tokens, max_length is {self.max_length}", "too_long")
        row = join_questions(rows) if sample.independent else rows[0]
        row["labels"][0] = IGNORED_LABEL  # nothing stands before it that could tell it
        if all(label == IGNORED_LABEL for label in row["labels"]):
            raise BadSampleError("has no token to learn from", "nothing_supervised")
        return row


class ConversationCollator:
    """Batches of conversations, with and without pictures, of one turn or many.

    Args:
        processor, stage: what samples are written down with that are not yet.
        attention: the implementation that masks are for.
        packing: put several samples into a row of at most the stage's `max_length`.
    """

    def __init__(
        self, processor: FlashSlothProcessor, stage: Stage, attention: str = "sdpa", packing: bool = False
    ) -> None:
        self.encode = SampleEncoder(processor, stage)
        self.attention, self.packing, self.max_length = attention, packing, stage.max_length
        self.fillers = {"input_ids": processor.tokenizer.pad_token_id or 0, "labels": IGNORED_LABEL}

    def __call__(self, samples: list[Sample | EncodedSample]) -> dict[str, Any]:
        encoded = []
        for sample in samples:
            with named(sample) if isinstance(sample, Sample) else nullcontext():
                encoded.append(self.encode(sample) if isinstance(sample, Sample) else sample)
        lengths = [len(sample.row["input_ids"]) for sample in encoded]
        rows = fill_rows(lengths, self.max_length) if self.packing else [[number] for number in range(len(encoded))]
        batch = self._texts([[encoded[number].row for number in row] for row in rows])
        in_order = [encoded[number] for row in rows for number in row]
        pixels = [sample.pixels for sample in in_order if sample.pixels is not None]
        if pixels:
            batch.update(_pictures(pixels))
        if all(sample.where is not None for sample in in_order):
            batch[IDS_KEY] = [str(sample.where) for sample in in_order]
        shown = [sample.patches for sample in in_order if sample.patches is not None]
        if shown:
            batch[PATCHES_KEY] = _stacked(shown)
        return batch

    def _texts(self, rows: list[list[Row]]) -> dict[str, Any]:
        """Everything but pictures, of the samples of each row."""
        if all(len(row) == 1 and "branch" not in row[0] for row in rows):
            batch = pad_rows([row[0] for row in rows], self.fillers)
            lengths = torch.tensor([len(row[0]["input_ids"]) for row in rows])
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
            return batch
        return pad_packed([join_samples(row) for row in rows], self.fillers, self.attention)


def _pictures(pixels: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Pictures of samples, float32 [n, W, 3, size, size] each, as the processor gives those of unlike views."""
    counts = torch.tensor([one.shape[1] for one in pixels for _ in one])
    most = int(counts.max())
    padded = [np.pad(one, [(0, 0), (0, most - one.shape[1]), *[(0, 0)] * 3]) for one in pixels]
    joined = {"pixel_values": torch.from_numpy(np.concatenate(padded if (counts < most).any() else pixels))}
    return {**joined, "image_views": counts} if (counts < most).any() else joined


class PatchCollator:
    """Batches of pictures with what each of their patches shows: int64 [B, P] beside `pixel_values`."""

    def __init__(self, processor: FlashSlothProcessor) -> None:
        self.image_processor = processor.image_processor

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = self.image_processor(images=[sample["image"] for sample in samples], return_tensors="pt")
        labels = [{name: values for name, values in sample.items() if name != "image"} for sample in samples]
        return {"pixel_values": pixels["pixel_values"], **_stacked(labels)}


def _stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """int64 [P] a property of each sample as int64 [B, P] a property."""
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def training_conversations(
    stage: StageRun, processor: FlashSlothProcessor, folder: Path, patch_grid: int | None = None
) -> GoodSamples:
    """The samples of a stage that learns answers, encoded; bad ones are written down in `folder`.

    Raises:
        DataError: if a source cannot be opened, or has no sample that it is to leave out.
    """
    check_resolutions(stage, processor)
    data = conversations(stage.data, patch_grid)
    left_out = [frozenset(source.leave_out) for source in stage.data]
    for part, numbers in zip(data.parts, left_out, strict=True):
        if numbers and max(numbers) >= len(part):
            raise DataError(f"leave_out names sample {max(numbers)} of {part.name}, whose last is {len(part) - 1}")
    bad_samples = BadSamples(folder / BAD_SAMPLES_FILE, len(data), stage.max_bad_fraction)
    return GoodSamples(data, SampleEncoder(processor, stage), bad_samples, left_out)


def check_resolutions(stage: StageRun, processor: FlashSlothProcessor) -> None:
    """Refuse what the model's processor cannot show.

    Raises:
        DataError: naming the resolution.
    """
    for source in (*stage.data, *stage.eval_data):
        try:
            views_of(source.resolution, processor.image_processor.image_grid)
        except ValueError as error:
            raise DataError(f"the data of stage {stage.stage}: {error}") from error


def held_out_kinds(data: Joined, encode: SampleEncoder) -> list[list[str]]:
    """The kinds of the answers of each held-out sample. Every text is written down once, so that one that cannot be
    asked about is found before anything is learned; pictures stay closed.

    Raises:
        DataError: naming a sample, for held-out ones are not left out.
    """
    kinds = []
    for index in range(len(data)):
        sample = data[index]
        with named(sample):
            kinds.append(kinds_of_answers(sample.kinds, encode.text(sample)["labels"]))
    return kinds


def step_loader(
    dataset: GoodSamples | Joined,
    stage: StageRun,
    *,
    seed: int,
    micro_batch_size: int,
    processes: int,
    tokens_per_picture: int,
) -> DataLoader:
    """The micro-batches of a stage, for all processes, as Trainer counts them.

    Args:
        dataset, stage: what they are of; how many samples a step has, and in which order, drawn by `seed`.
        micro_batch_size, processes: samples that a process holds at a time, and how many processes there are.
        tokens_per_picture: visual tokens, for estimated lengths.
    """
    sampler = StepBatchSampler(
        dataset.data if isinstance(dataset, GoodSamples) else dataset,
        seed,
        stage.batch_size,
        micro_batch_size,
        processes,
        stage.shuffle,
        tokens_per_picture if stage.group_by_modality_length else None,
    )
    return DataLoader(dataset, batch_sampler=sampler)


@dataclass
class BatchMaker:
    """Makes a batch of sample numbers, here or in a worker."""

    dataset: Any
    collator: Callable[[list[Any]], dict[str, Any]]

    def __call__(self, numbers: list[int]) -> dict[str, Any]:
        return self.collator([self.dataset[number] for number in numbers])


class PooledLoader(DataLoader):
    """A DataLoader's batches, made by workers of ours.

    Args:
        loader: whose.
        collator: makes them of samples.
        make_pool: of its dataset and collator.
    """

    def __init__(
        self,
        loader: DataLoader,
        collator: Callable[[list[Any]], dict[str, Any]],
        make_pool: Callable[[BatchMaker], WorkerPool],
    ) -> None:
        super().__init__(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=collator)
        self.make_pool = make_pool

    def __iter__(self) -> Any:
        assert self.batch_sampler is not None
        pool = self.make_pool(BatchMaker(self.dataset, self.collate_fn))
        try:
            yield from pool.batches(self.batch_sampler)
        finally:
            pool.close()
