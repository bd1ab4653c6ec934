"""How good the answers are while training, without generating: the share that greedy decoding would get right.

An answer is right if every one of its tokens is the most likely one given the right beginning. That is exactly when
greedy decoding produces it, so one pass over the text measures what generation would.

Legend: B samples, T positions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from flashsloth.model.processing_flashsloth import IGNORED_LABEL

SEVERAL = "text"
"""The kind of what a template writes in one piece, where its answers are of several kinds."""
_PROPERTIES = ("shape", "color", "character", "center")


def most_likely(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Keep only the most likely token of each position, int64 [B, T]: a whole evaluation's logits would fill memory.

    Where the model was asked to skip logits, that is what it gives already.
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


def patch_predictions(logits: Any, labels: Any) -> torch.Tensor:
    """Patch predictions are class numbers already, int64 [B, P, properties]."""
    return logits[0] if isinstance(logits, tuple) else logits


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


__all__ = [
    "answer_accuracy",
    "answers_right",
    "kinds_of_answers",
    "most_likely",
    "patch_accuracy",
    "patch_predictions",
]
