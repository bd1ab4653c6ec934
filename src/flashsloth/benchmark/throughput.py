"""What an accelerator is for: many questions at once, and whether its fast path gives what the plain one gives.

In: a model, how many pictures, how long the answers. Out: a :class:`Throughput`. The clock runs from pictures in memory
to the last token of the last answer, picture preparation included. A model that cannot hold so many rows at once is
tried with half as many, and so on.

In: a model in float32. Out: an :class:`Agreement`: the largest KL divergence between next-token probabilities of any
position of an answer. The same random weights answer twice: in float32 by the plain path; then cast and sped up, and
made to say the same tokens, since random weights make near ties.

In: nothing. Out: facts about the accelerator at the moment (name, driver, clocks, power), as the driver's own tool
writes them, and the versions that use it.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from flashsloth.benchmark.models.flashsloth import BenchmarkedFlashSloth
from flashsloth.benchmark.timing import wait_for
from flashsloth.benchmark.workload import BenchmarkModel, StandardJob
from flashsloth.errors import BenchmarkError
from flashsloth.inference.load import DTYPES
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState
from flashsloth.kernels import check_quantization
from flashsloth.version import installed_versions


@dataclass(frozen=True)
class Throughput:
    """What was measured, or why it was not.

    Attributes:
        subject: a name in `workload.py`.
        new_tokens: of every answer.
        pictures: each with one question.
        rows: answers at once, at most.
        seconds: for all of them.
        failure: in one line, if there is nothing else.
    """

    subject: str
    new_tokens: int
    pictures: int
    rows: int
    seconds: float = 0.0
    failure: str | None = None

    @property
    def pictures_per_second(self) -> float:
        """Answers a second."""
        return self.pictures / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Of all answers together, reading the pictures included."""
        return self.pictures * self.new_tokens / self.seconds


def measure_throughput(
    model: BenchmarkModel, name: str, job: StandardJob, pictures: int, new_tokens: int, rows: int, device: torch.device
) -> Throughput:
    """Answer as many questions, once to warm up with a row each, then on the clock."""
    while True:
        try:
            shown = [job.picture(number) for number in range(pictures + rows)]
            model.answer_all(shown[pictures:], new_tokens, rows)
            model.forget()
            gc.collect()
            seconds = _timed(model, shown[:pictures], new_tokens, rows, device)
            return Throughput(name, new_tokens, pictures, rows, seconds)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        model.forget()
        gc.collect()
        torch.cuda.empty_cache()
        rows //= 2


def _timed(model: BenchmarkModel, shown: list[Any], new_tokens: int, rows: int, device: torch.device) -> float:
    recorded = model.recorded
    wait_for(device)
    start = time.perf_counter()
    model.answer_all(shown, new_tokens, rows)
    wait_for(device)
    seconds = time.perf_counter() - start
    if model.recorded != recorded:
        raise BenchmarkError("a pass was recorded while time was taken; expected all to be warm")
    return seconds


PICTURE = 1


@dataclass(frozen=True)
class Agreement:
    """How near a fast path is to the plain one in float32.

    Attributes:
        subject: a name in `workload.py`.
        positions: of the answer, each with a distribution of the next token.
        largest_kl: of any of them, from float32's to the fast path's.
        mean_kl: over them.
    """

    subject: str
    positions: int
    largest_kl: float
    mean_kl: float


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
    model: BenchmarkedFlashSloth, name: str, dtype: str, quantize: str | None, job: StandardJob
) -> Agreement:
    """Compare a plain float32 model with what it is made into.

    Args:
        model: in float32, not sped up; afterwards it is as it was asked for.
        name: what it is called.
        dtype: what the fast path computes in.
        quantize: fewer bits for its language model's weights.
        job: how long prompt and answer are.
    """
    plain = Dictated()
    model.answer_as(plain, job.picture(PICTURE), job.new_tokens)
    model.cast(DTYPES[dtype])
    model.speed_up(check_quantization(quantize))
    model.forget()
    fast = Dictated(plain.taken)
    model.answer_as(fast, job.picture(PICTURE), job.new_tokens)
    expected, found = (torch.cat(one.logits[: job.new_tokens]).double().log_softmax(-1) for one in (plain, fast))
    divergence = F.kl_div(found, expected, reduction="none", log_target=True).sum(-1)
    return Agreement(name, len(divergence), float(divergence.max()), float(divergence.mean()))


TOOL = "nvidia-smi"
QUERIES = (
    "name",
    "driver_version",
    "vbios_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "clocks_throttle_reasons.active",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "mig.mode.current",
)
"""What the tool is asked, in its own words."""
PACKAGES = ("torch", "transformers", "triton", "torchao", "accelerate", "flashsloth")
TOOL_SECONDS = 20.0


def device_facts() -> dict[str, str]:
    """Everything that is known of the first accelerator, and the versions of the packages."""
    facts = _driver_facts()
    if torch.version.cuda is not None:
        facts["cuda"] = torch.version.cuda
    return {**facts, **installed_versions(PACKAGES)}


def parse_facts(line: str) -> dict[str, str]:
    """The tool's answer, a line of values in the order of :data:`QUERIES`; what it does not know is left out."""
    values = [value.strip() for value in line.split(",")]
    pairs = zip(QUERIES, values, strict=True)
    return {name: value for name, value in pairs if value and not value.startswith("[")}


def _driver_facts() -> dict[str, str]:
    """What the driver's tool says; nothing where there is none, or it does not know these words."""
    if shutil.which(TOOL) is None:
        return {}
    command = [TOOL, f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": f"{TOOL} failed: {' '.join(str(error).split())}"}
    lines = said.strip().splitlines()
    return parse_facts(lines[0]) if lines else {}
