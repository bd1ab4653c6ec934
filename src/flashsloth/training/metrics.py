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

_PROPERTIES = ("shape", "color", "character", "center")


def most_likely(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Keep only the most likely token of each position, int64 [B, T]: a whole evaluation's logits would fill memory.

    Where the model was asked to skip logits, that is what it gives already.
    """
    scores = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1) if scores.is_floating_point() else scores


def answers_right(predicted: np.ndarray, labels: np.ndarray) -> list[list[bool]]:
    """Which answers of each sample are right; int64 [B, T] both, `predicted[t]` made after seeing position t."""
    right = []
    for row, wanted in zip(predicted[:, :-1], labels[:, 1:], strict=True):
        learned = wanted != IGNORED_LABEL
        starts = np.flatnonzero(learned & ~np.concatenate([[False], learned[:-1]]))
        ends = np.flatnonzero(learned & ~np.concatenate([learned[1:], [False]])) + 1
        right.append([bool((row[a:b] == wanted[a:b]).all()) for a, b in zip(starts, ends, strict=True)])
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
    """Share of patches that show something whose class is named rightly, for each property."""
    labels = dict(zip(_PROPERTIES, prediction.label_ids, strict=True))
    scores = {}
    for index, name in enumerate(_PROPERTIES):
        shown = labels[name] != 0
        scores[f"right_{name}"] = float((prediction.predictions[..., index][shown] == labels[name][shown]).mean())
    return scores


__all__ = ["answer_accuracy", "answers_right", "most_likely", "patch_accuracy", "patch_predictions"]
