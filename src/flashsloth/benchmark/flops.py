"""Operations counted as they are run, by stage.

In: a subject in its plain form and a job. Out: floating-point operations (FLOPs) of each stage up to the first token,
and of one token more. Counted are products of matrices and convolutions, two operations for each multiplication, as
torch's own counter does; masked attention is counted as it is computed, whole.

The plain form is what is counted: packed and quantized layers are operators that the counter does not know, and compute
the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from flashsloth.benchmark.job import StandardJob
from flashsloth.benchmark.stage_clock import Operations, StageClock
from flashsloth.benchmark.subject import Subject

STEP = "step"
"""One more token."""
FLOPS_PER_WEIGHT = 2


def count_flops(subject: Subject, job: StandardJob) -> dict[str, float]:
    """Run the job's beginning once, and count."""
    with counting() as counter:
        clock = StageClock(Operations(counter))
        with clock.watching(subject.parts):
            subject.answer(job.picture(0), question=0, new_tokens=2, clock=clock)
    first, second = clock.tokens()
    return {**clock.stages(), STEP: second - first}


def counting() -> FlopCounterMode:
    """Torch's counter, taught the one operator of a processor's attention that it lacks."""
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={operator: _attention_flops})


def _attention_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    *arguments: Any,  # what else the operator takes; it changes nothing
    out_shape: Any = None,
    **options: Any,
) -> int:
    """Of shapes [B, heads, N, width]: queries with keys, weights with values; heads as the queries have."""
    batch, heads, positions, width = query
    return FLOPS_PER_WEIGHT * batch * heads * positions * key[2] * (width + value[3])
