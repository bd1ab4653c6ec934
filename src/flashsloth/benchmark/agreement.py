"""Whether the fast path gives what the plain one gives: how far its next-token probabilities are from float32's.

In: a subject's specification. Out: an :class:`Agreement`: the largest KL divergence of any position of an answer.

The same random weights answer twice: in float32 by the plain path; then cast and sped up as the subject is, and made to
say the same tokens, since random weights make near ties.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from flashsloth.benchmark.flashsloth_subject import FlashSlothSubject
from flashsloth.benchmark.job import StandardJob
from flashsloth.inference.precision import DTYPES
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState
from flashsloth.speed import check_quantization

PICTURE = 1


@dataclass(frozen=True)
class Agreement:
    """How near a fast path is to the plain one in float32.

    Attributes:
        subject: a name in `subjects.py`.
        positions: of the answer, each with a distribution of the next token.
        largest_kl: of any of them, from float32's to the fast path's.
        mean_kl: over them.
    """

    subject: str
    positions: int
    largest_kl: float
    mean_kl: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


class Dictated(Sampler):
    """Keeps the logits of an answer that runs alone, and takes the tokens that it is told; the likeliest if none."""

    def __init__(self, tokens: list[int] | None = None) -> None:
        super().__init__([], 0)
        self.logits: list[torch.Tensor] = []
        self.taken: list[int] = []
        self._tokens = tokens

    def needs_logits(self, states: Sequence[SamplingState]) -> bool:
        """Always: they are kept."""
        return True

    def __call__(self, logits: torch.Tensor, states: Sequence[SamplingState]) -> list[Sampled | Exception]:
        """The next token, of `logits` float [1, K]."""
        number = len(self.logits)
        self.logits.append(logits.float().cpu())
        if self._tokens is None:
            self.taken.append(int(logits.argmax()))
        else:
            self.taken.append(self._tokens[min(number, len(self._tokens) - 1)])
        return [Sampled(self.taken[-1])]


def measure_agreement(
    subject: FlashSlothSubject, name: str, dtype: str, quantize: str | None, job: StandardJob
) -> Agreement:
    """Compare a plain float32 subject with what it is made into.

    Args:
        subject: in float32, not sped up; afterwards it is as it was asked for.
        name: what it is called.
        dtype: what the fast path computes in.
        quantize: fewer bits for its language model's weights.
        job: how long prompt and answer are.
    """
    plain = Dictated()
    subject.answer_as(plain, job.picture(PICTURE), job.new_tokens)
    subject.cast(DTYPES[dtype])
    subject.speed_up(check_quantization(quantize))
    subject.forget()
    fast = Dictated(plain.taken)
    subject.answer_as(fast, job.picture(PICTURE), job.new_tokens)
    expected, found = (torch.cat(one.logits[: job.new_tokens]).double().log_softmax(-1) for one in (plain, fast))
    divergence = F.kl_div(found, expected, reduction="none", log_target=True).sum(-1)
    return Agreement(name, len(divergence), float(divergence.max()), float(divergence.mean()))


__all__ = ["Agreement", "measure_agreement"]
