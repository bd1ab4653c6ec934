"""One model, measured: made, counted, warmed up, and then asked again and again.

In: which model, which job, which device. Out: facts about it, its floating-point operations (FLOPs) by stage among
them, and stamps of each run, as JSON can hold them.

Operations are counted as the plain form of a model runs: packed and quantized layers are operators that the counter
does not know, and compute the same.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from flashsloth.benchmark.models import BASELINES, make_baseline
from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth, load_shipped, make_published_size
from flashsloth.benchmark.timing import CpuContention, Operations, StageClock, scale_of
from flashsloth.benchmark.workload import BASELINE, BenchmarkModel, ModelSpec, StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.kernels import check_quantization
from flashsloth.planning.flops import counting
from flashsloth.planning.machine import peak_bytes, read_bandwidth_now, reset_peak

STEP = "step"
"""One more token."""


def count_flops(model: BenchmarkModel, job: StandardJob) -> dict[str, float]:
    """Run the job's beginning once, and count."""
    with counting() as counter:
        clock = StageClock(Operations(counter))
        with clock.watching(model.parts):
            model.answer(job.picture(0), question=0, new_tokens=2, clock=clock)
    first, second = clock.tokens()
    return {**clock.stages(), STEP: second - first}


WARM_UP_PICTURE = 0
"""Runs that count begin with the next one."""


def make_model(spec: ModelSpec, job: StandardJob, device: torch.device) -> BenchmarkModel:
    """A model in its plain form."""
    dtype = DTYPES[spec.dtype]
    if spec.kind == BASELINE:
        return make_baseline(BASELINES[spec.name](), dtype, device, job)
    if spec.kind == "shipped":
        return load_shipped(dtype, device, job)
    return make_published_size(spec.grid, dtype, device, job)


def sped_up(model: BenchmarkModel, spec: ModelSpec) -> BenchmarkModel:
    """The model, made faster as `load` does where that is asked for."""
    if isinstance(model, BenchmarkedFlashSloth) and spec.optimize:
        model.speed_up(check_quantization(spec.quantize))
    return model


class MeasuredModel:
    """A model, ready: its operations are counted, it is sped up where that is asked for, and warm.

    Args:
        spec: which.
        job: the standard job.
        device: where.
        watch: tells what others do meanwhile.
    """

    def __init__(self, spec: ModelSpec, job: StandardJob, device: torch.device, watch: CpuContention) -> None:
        start = time.perf_counter()
        self._spec, self._job, self._device, self._watch = spec, job, device, watch
        self.model = make_model(spec, job, device)
        self._parameters = self.model.parameters
        self._flops = count_flops(self.model, job)
        sped_up(self.model, spec)
        reset_peak(device)
        self.run(WARM_UP_PICTURE)
        self._build_seconds = time.perf_counter() - start

    def facts(self) -> dict[str, Any]:
        """What is known before anything is measured, as fields of `ModelResult`."""
        model = self.model
        return {
            "parameters": self._parameters,
            "visual_tokens": model.visual_tokens,
            "positions": model.positions,
            "flops": self._flops,
            "step_bytes": model.step_bytes,
            "key_value_bytes": model.key_value_bytes,
            "build_seconds": self._build_seconds,
        }

    def run(self, picture: int) -> dict[str, Any]:
        """The standard job once, as fields of `Run`."""
        image, tokens = self._job.picture(picture), self._job.new_tokens
        self.model.forget()
        return self._measured(lambda clock: self.model.answer(image, 0, tokens, clock), tokens)

    def again(self, picture: int) -> dict[str, Any]:
        """A second question about a picture, up to its first token."""
        image = self._job.picture(picture)
        self.model.forget()
        self.model.answer(image, 0, 1, StageClock(scale_of(self._device)))
        return self._measured(lambda clock: self.model.answer(image, 1, 1, clock), tokens=1)

    def batch(self, picture: int, rows: int) -> dict[str, Any]:
        """As many jobs at once, about pictures from this number on; the tokens are steps of all rows."""
        images = [self._job.picture(picture + row) for row in range(rows)]
        tokens = self._job.new_tokens
        self.model.forget()

        def answer(clock: StageClock) -> None:
            with clock.counting_steps(self.model.head):
                self.model.answer_batch(images, tokens)

        return self._measured(answer, tokens)

    def peak(self) -> int:
        """The most memory held since the warm-up."""
        return peak_bytes(self._device)

    def _measured(self, answer: Callable[[StageClock], None], tokens: int) -> dict[str, Any]:
        """Stamps of one run, and what others took of the machine meanwhile."""
        gc.collect()
        bandwidth = read_bandwidth_now(self._device)
        since = self._watch.read()
        recorded = self.model.recorded
        clock = StageClock(scale_of(self._device))
        with clock.watching(self.model.parts):
            answer(clock)
        found = clock.tokens()
        if self.model.recorded != recorded:
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
