"""What is measured while a run trains: its loss and speed, the share of right answers, the work that a step takes.

In: what each batch holds, counted by the process that makes it (:class:`BatchFacts`: no device waits for it); each
step's sums over all processes; predictions of held-out samples. Out: the numbers of a log line. Sums go into a
checkpoint and come back out of it, so that a run that was stopped logs what the run that was not stopped logs.

An answer is right if every one of its tokens is the most likely one given the right beginning. That is exactly when
greedy decoding produces it, so one pass over the text measures what generation would.

Model FLOPs utilisation is the floating-point operations (FLOPs) that the mathematics needs, over what the device could
have done in the time, at the measured rate of a large matrix product. Padding and recomputed activations are no work: a
forward pass counts as in `planning/flops.py`, and for each part as much again for the gradient of what goes into it,
where something before it learns, and as much again for the gradient of its weights, by the share of them that learns.

Legend: B samples, T positions, n tokens of a row.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from flashsloth.errors import BenchmarkError
from flashsloth.model.processing_flashsloth import IGNORED_LABEL
from flashsloth.planning.flops import EMBQ, ENCODER, HEAD, LANGUAGE_MODEL, PROJECTOR, SAP, Cost, Workload
from flashsloth.planning.machine import MATRIX_SHAPES, best_seconds
from flashsloth.planning.model_shape import FLOPS_PER_WEIGHT
from flashsloth.training.stages import PARTS

GIGABYTE = 1e9
SEVERAL = "text"
"""The kind of what a template writes in one piece, where its answers are of several kinds."""
_PROPERTIES = ("shape", "color", "character", "center")
FACTS_KEY = "facts"
IDS_KEY = "ids"
"""Where a collator may put the names of its samples: list of str."""
ORDER = (ENCODER, SAP, PROJECTOR, EMBQ, LANGUAGE_MODEL, HEAD)
"""What is computed, first things first: a gradient goes back through a part if anything before it learns."""
SINGLE_LAYERS = (SAP,)
"""Parts with one layer of any size: if nothing before it learns, nobody needs the gradient of what goes into it."""
_MODULES = {
    ENCODER: PARTS["vision_encoder"],
    SAP: PARTS["sap"],
    PROJECTOR: PARTS["projector"],
    EMBQ: PARTS["embq"],
    LANGUAGE_MODEL: PARTS["language_model"],
    HEAD: PARTS["head"],
}


@dataclass
class StepSums:
    """Sums over all processes, and over the steps since the last log line.

    Attributes:
        loss: of each step the mean over its supervised tokens.
        steps: optimizer steps.
        samples: that were learned from.
        tokens: of their rows, without padding.
        flops: that their forward and backward passes need.
    """

    loss: float = 0.0
    steps: int = 0
    samples: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0

    def add(self, other: StepSums) -> None:
        """Another step's."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Meter:
    """Adds steps up and makes log lines of them.

    Attributes:
        since_log: sums that a log line has still to show; a checkpoint keeps them.
        measured: those of this process's own time: steps before a restart took nobody's time here.
        matrix_rate: operations a second of all devices together, or None.
    """

    def __init__(self) -> None:
        self.since_log, self.measured = StepSums(), StepSums()
        self.matrix_rate: float | None = None
        self._seconds = self._waited = 0.0
        self._began: float | None = None

    def begin_step(self) -> None:
        """The data of a step is about to be taken."""
        self._began = time.perf_counter()

    def has_data(self) -> None:
        """And is there."""
        assert self._began is not None
        self._waited += time.perf_counter() - self._began

    def end_step(self, sums: StepSums) -> None:
        """The weights have moved."""
        assert self._began is not None
        self._seconds += time.perf_counter() - self._began
        self._began = None
        self.since_log.add(sums)
        self.measured.add(sums)

    def take(self, peak_bytes: int) -> dict[str, float]:
        """A log line's numbers; the next one starts from zero."""
        seconds, done = self._seconds, self.measured
        line = {"loss": self.since_log.loss / max(1, self.since_log.steps)}
        if seconds > 0:
            line["samples_per_second"] = done.samples / seconds
            line["tokens_per_second"] = done.tokens / seconds
            line["seconds_per_step"] = seconds / done.steps
            line["waiting_for_data"] = self._waited / seconds
            if self.matrix_rate and done.flops:
                line["mfu"] = done.flops / seconds / self.matrix_rate
        line["peak_memory_gb"] = peak_bytes / GIGABYTE
        self.since_log, self.measured = StepSums(), StepSums()
        self._seconds = self._waited = 0.0
        return line


def most_likely(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Keep only the most likely token of each position, int64 [B, T]: a whole evaluation's logits would fill memory.

    Where the model was asked to skip logits, or predicts patches' classes, that is what it gives already.
    """
    scores = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1) if scores.is_floating_point() else scores


def answer_spans(labels: np.ndarray) -> list[tuple[int, int]]:
    """Where the answers of a sample stand: what is supervised without a break, int64 [T]."""
    learned = np.concatenate([[False], labels != IGNORED_LABEL, [False]])
    edges = np.flatnonzero(learned[1:] != learned[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def kinds_of_answers(kinds: list[str], labels: list[int]) -> list[str]:
    """The kinds of a sample's answers as they are scored: one where a template writes all of them in one piece."""
    if len(answer_spans(np.asarray(labels))) == len(kinds):
        return kinds
    return kinds[:1] if len(set(kinds)) == 1 else [SEVERAL]


def answers_right(predicted: np.ndarray, labels: np.ndarray) -> list[list[bool]]:
    """Which answers of each sample are right; int64 [B, T] both, `predicted[t]` made after seeing position t."""
    right = []
    for row, wanted in zip(predicted[:, :-1], labels[:, 1:], strict=True):
        right.append([bool((row[a:b] == wanted[a:b]).all()) for a, b in answer_spans(wanted)])
    return right


def answer_accuracy(kinds: list[list[str]]) -> Any:
    """Make Trainer's `compute_metrics`: accuracy overall and per kind of question, for samples of these kinds."""

    def compute(prediction: Any) -> dict[str, float]:
        total, correct = Counter[str](), Counter[str]()
        right = answers_right(prediction.predictions, prediction.label_ids)
        for sample_kinds, sample_right in zip(kinds, right, strict=True):
            for kind, is_right in zip(sample_kinds, sample_right, strict=True):
                total[kind] += 1
                correct[kind] += is_right
        scores = {f"right_{kind}": correct[kind] / total[kind] for kind in sorted(total)}
        return {"right": sum(correct.values()) / max(1, sum(total.values())), **scores}

    return compute


def patch_accuracy(prediction: Any) -> dict[str, float]:
    """Share of patches that show something whose class is named rightly, for each property that any of them has."""
    labels = dict(zip(_PROPERTIES, prediction.label_ids, strict=True))
    scores = {}
    for index, name in enumerate(_PROPERTIES):
        shown = labels[name] != 0
        if not shown.any():
            continue
        scores[f"right_{name}"] = float((prediction.predictions[..., index][shown] == labels[name][shown]).mean())
    return scores


@dataclass(frozen=True)
class BatchFacts:
    """One micro-batch.

    Attributes:
        ids: its samples' names; empty where the collator gives none.
        samples: how many they are.
        lengths: tokens of each row, without padding.
        supervised: tokens that the loss stands on; None where the loss is not one of tokens.
        pictures: how many are looked at.
    """

    ids: tuple[str, ...]
    samples: int
    lengths: tuple[int, ...]
    supervised: int | None
    pictures: int

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(self.lengths)


class CountingCollator:
    """A collator that says what its batches hold."""

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], pad_token_id: int | None) -> None:
        self.collator, self.pad_token_id = collator, pad_token_id

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        batch = dict(self.collator(samples))
        ids = tuple(str(name) for name in batch.pop(IDS_KEY, ()))
        batch[FACTS_KEY] = self._count(batch, ids, len(samples))
        return batch

    def _count(self, batch: dict[str, Any], ids: tuple[str, ...], samples: int) -> BatchFacts:
        pixels = batch.get("pixel_values")
        labels, tokens = batch.get("labels"), batch.get("input_ids")
        lengths: tuple[int, ...] = ()
        if tokens is not None:
            lengths = tuple(tokens.ne(-1 if self.pad_token_id is None else self.pad_token_id).sum(dim=1).tolist())
        return BatchFacts(
            ids=ids,
            samples=samples,
            lengths=lengths,
            # a token is learned from the one before it: the first position's label is not used
            supervised=None if labels is None else int(labels[:, 1:].ne(IGNORED_LABEL).sum()),
            pictures=0 if pixels is None else len(pixels),
        )


def take_facts(batch: dict[str, Any]) -> BatchFacts:
    """A batch's facts, which are then no longer in it."""
    facts = batch.pop(FACTS_KEY)
    assert isinstance(facts, BatchFacts)
    return facts


class TrainingCost:
    """FLOPs of training a model as it is now frozen and unfrozen.

    Args:
        model: a FlashSloth, adapters and all.
        answers: whether answers are learned; if not, the encoder alone runs.
        encoder_runs: False where its features are read from disk.

    Raises:
        BenchmarkError: for a model whose work cannot be told.
    """

    def __init__(self, model: nn.Module, *, answers: bool, encoder_runs: bool = True) -> None:
        config: Any = model.config
        self.cost = Cost.of(config)
        self.answers = answers
        shares = {part: _learning_share(model.get_submodule(path)) for part, path in _MODULES.items()}
        self.factors: dict[str, float] = {}
        learns_before = False
        for part in ORDER:
            share = shares[part]
            goes_through = learns_before or (share > 0 and part not in SINGLE_LAYERS)
            self.factors[part] = 1.0 + goes_through + share
            learns_before = learns_before or share > 0
        if not encoder_runs:
            self.factors[ENCODER] = 0.0

    def flops(self, facts: BatchFacts) -> float:
        """Of one micro-batch, forward and backward."""
        look = self.cost.encode_flops(facts.pictures)
        if not self.answers:
            return self.factors[ENCODER] * look[ENCODER]
        language_model = sum(self.cost.language_model.flops(n, n) for n in facts.lengths)
        parts: dict[str, float] = {
            **look,
            EMBQ: self._embq_flops(facts),
            LANGUAGE_MODEL: language_model,
            HEAD: FLOPS_PER_WEIGHT * self.cost.head.size * (facts.supervised or 0),
        }
        return sum(self.factors[part] * parts[part] for part in ORDER)

    def _embq_flops(self, facts: BatchFacts) -> float:
        """Queries of one turn a picture: EmbQ is next to nothing beside the rest, and turns are not counted here."""
        if not facts.pictures:
            return 0
        rows = max(1, len(facts.lengths))
        work = Workload(pictures=1, text_tokens=max(1, facts.tokens // rows))
        return facts.pictures * self.cost.prompt_flops(work)[EMBQ]


def training_cost(model: nn.Module, *, answers: bool, encoder_runs: bool = True) -> TrainingCost | str:
    """A model's training cost, or why it cannot be told."""
    try:
        return TrainingCost(model, answers=answers, encoder_runs=encoder_runs)
    except BenchmarkError as error:
        return str(error)


def measure_matrix_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second of a large product of plain layers, as training runs them; None for an unknown device."""
    if device.type not in MATRIX_SHAPES:
        return None
    rows, inputs, outputs = MATRIX_SHAPES[device.type][0]
    with torch.no_grad():
        # drawn by a generator of its own, and no zeros, which some devices multiply faster
        generator = torch.Generator(device).manual_seed(0)
        states = torch.randn(rows, inputs, device=device, generator=generator).to(dtype)
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, device=device, dtype=dtype)
        layer.weight.copy_(torch.randn(outputs, inputs, device=device, generator=generator))
        return 2 * rows * inputs * outputs / best_seconds(layer, states, device)


def _learning_share(module: nn.Module) -> float:
    parameters = list(module.parameters())
    everything = sum(parameter.numel() for parameter in parameters)
    learning = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return learning / everything if everything else 0.0
