"""One subject, measured: made, counted, warmed up, and then asked again and again.

In: which subject, which job, which device. Out: facts about it, and stamps of each run, as JSON can hold them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.flashsloth_subject import FlashSlothSubject, load_shipped, make_published_size
from flashsloth.benchmark.flops import count_flops
from flashsloth.benchmark.job import StandardJob
from flashsloth.benchmark.machine import read_bandwidth_now
from flashsloth.benchmark.memory import peak_bytes, reset_peak
from flashsloth.benchmark.peers import PEERS, make_peer
from flashsloth.benchmark.quiet import LoadWatch
from flashsloth.benchmark.stage_clock import StageClock, scale_of
from flashsloth.benchmark.subject import Subject
from flashsloth.benchmark.subjects import SubjectSpec
from flashsloth.inference.precision import DTYPES

WARM_UP_PICTURE = 0
"""Runs that count begin with the next one."""


def make_subject(spec: SubjectSpec, job: StandardJob, device: torch.device) -> Subject:
    """A subject in its plain form."""
    dtype = DTYPES[spec.dtype]
    if spec.kind == "peer":
        return make_peer(PEERS[spec.name](), dtype, device, job)
    if spec.kind == "shipped":
        return load_shipped(dtype, device, job)
    return make_published_size(spec.grid, dtype, device, job)


class MeasuredSubject:
    """A subject, ready: its operations are counted, it is sped up where that is asked for, and warm.

    Args:
        spec: which.
        job: the standard job.
        device: where.
        watch: tells what others do meanwhile.
    """

    def __init__(self, spec: SubjectSpec, job: StandardJob, device: torch.device, watch: LoadWatch) -> None:
        start = time.perf_counter()
        self._spec, self._job, self._device, self._watch = spec, job, device, watch
        self.subject = make_subject(spec, job, device)
        self._parameters = self.subject.parameters
        self._flops = count_flops(self.subject, job)
        if isinstance(self.subject, FlashSlothSubject) and spec.optimize:
            self.subject.speed_up(spec.quantize)  # type: ignore[arg-type]  # checked there
        reset_peak(device)
        self.run(WARM_UP_PICTURE)
        self._build_seconds = time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """What is known before anything is measured, as fields of `SubjectResult`."""
        subject = self.subject
        return {
            "parameters": self._parameters,
            "visual_tokens": subject.visual_tokens,
            "positions": subject.positions,
            "flops": self._flops,
            "step_bytes": subject.step_bytes,
            "key_value_bytes": subject.key_value_bytes,
            "build_seconds": self._build_seconds,
        }

    def run(self, picture: int) -> dict[str, Any]:
        """The standard job once, as fields of `Run`."""
        image, tokens = self._job.picture(picture), self._job.new_tokens
        self.subject.forget()

        def answer(clock: StageClock) -> None:
            with clock.watching(self.subject.parts):
                self.subject.answer(image, question=0, new_tokens=tokens, clock=clock)

        return self._measured(answer, tokens)

    def again(self, picture: int) -> dict[str, Any]:
        """A second question about a picture, up to its first token."""
        image = self._job.picture(picture)
        self.subject.forget()
        self.subject.answer(image, question=0, new_tokens=1, clock=StageClock(scale_of(self._device)))

        def answer(clock: StageClock) -> None:
            with clock.watching(self.subject.parts):
                self.subject.answer(image, question=1, new_tokens=1, clock=clock)

        return self._measured(answer, tokens=1)

    def batch(self, picture: int, rows: int) -> dict[str, Any]:
        """As many jobs at once, about pictures from this number on; the tokens are steps of all rows."""
        images = [self._job.picture(picture + row) for row in range(rows)]
        tokens = self._job.new_tokens
        self.subject.forget()

        def answer(clock: StageClock) -> None:
            with clock.watching(self.subject.parts), clock.counting_steps(self.subject.head):
                self.subject.answer_batch(images, tokens)

        return self._measured(answer, tokens)

    def peak(self) -> int:
        """The most memory held since the warm-up."""
        return peak_bytes(self._device)

    def _measured(self, answer: Callable[[StageClock], None], tokens: int) -> dict[str, Any]:
        """Stamps of one run, and what others took of the machine meanwhile."""
        gc.collect()
        bandwidth = read_bandwidth_now(self._device)
        since = self._watch.read()
        recorded = self.subject.recorded
        clock = StageClock(scale_of(self._device))
        answer(clock)
        found = clock.tokens()
        if self.subject.recorded != recorded:
            raise BenchmarkError(f"{self._spec.name} recorded a pass while time was taken; expected it to be warm")
        share = self._watch.others_share(since)
        if len(found) != tokens:
            raise BenchmarkError(f"{self._spec.name} gave {len(found)} tokens; expected {tokens}")
        return {
            "stages": clock.stages(),
            "tokens": found,
            "others_share": share,
            "read_bandwidth": bandwidth,
        }
