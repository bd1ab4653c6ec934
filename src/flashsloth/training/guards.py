"""What stops a run before it does harm: a loss, gradient or weight that is not a number, a batch that teaches nothing.

In: the micro-batches of an optimizer step, of every process; or tensors that are about to be kept. Out: nothing, or an
error on all processes alike: a :class:`TrainingStoppedError`, before the optimizer has touched a weight, that names the
samples; or a :class:`WeightsError` that names the tensors and the last checkpoint that is sound. So a checkpoint that
is there is one to go back to.

Each tensor is read once, by adding it up, and one number of each comes from the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.training import distributed
from flashsloth.training.checkpoints import whole
from flashsloth.training.metrics import BatchFacts, StepSums

NAMES_SHOWN = 8
"""Samples that an error names; of more it says how many."""
REMEDY = (
    "see what is in them with `flashsloth data show`, leave them out (leave_out: [numbers], beside their source in the "
    "recipe) or lower the learning rate, then --resume; where that comes to the same, remove the last checkpoint, and "
    "the one before it is gone on from"
)
TENSORS_SHOWN = 3
"""Tensors that an error names."""
Named = tuple[str, torch.Tensor]


class TrainingStoppedError(FlashSlothError, ValueError):
    """A run was stopped before it would have harmed the weights."""


def agree_on_step(
    batches: list[BatchFacts],
    losses: list[float],
    gradient: float,
    *,
    flops: float,
    asked_to_stop: bool,
    step: int,
    device: torch.device,
) -> tuple[StepSums, bool]:
    """Hear from all processes whether an optimizer step may be taken, and what is in it; all call this together.

    Args:
        batches, losses, flops: of the step's micro-batches on this process.
        gradient: norm of the whole step's.
        asked_to_stop: whether this process was.
        step: the step that is about to be taken.

    Returns:
        What the step sums up to over all processes, and whether any of them was asked to stop.

    Raises:
        TrainingStoppedError: on all processes, if any has a loss or a gradient that is infinite or NaN, or a
            micro-batch that nothing is learned from.
    """
    bad = not all(math.isfinite(number) for number in (*losses, gradient))
    empty = any(facts.supervised == 0 for facts in batches)
    mine = [
        0.0 if bad else sum(losses) / distributed.count(),
        float(sum(facts.samples for facts in batches)),
        float(sum(facts.tokens for facts in batches)),
        flops,
        float(bad),
        float(empty),
        float(asked_to_stop),
    ]
    loss, samples, tokens, flops, any_bad, any_empty, any_stop = distributed.all_reduce_sum(mine, device)
    if any_empty:
        stop_at_nothing_supervised(batches, step)
    if any_bad:
        stop_at_non_finite(batches, losses, gradient, step)
    return StepSums(loss, 1, samples, tokens, flops), any_stop > 0


def to_floats(numbers: Sequence[Any], device: torch.device) -> list[float]:
    """Losses and norms, whatever they are held as, fetched from their device at once."""
    return torch.stack([_plain(number).to(device) for number in numbers]).tolist()


def _plain(number: Any) -> torch.Tensor:
    """One of them as float32 []."""
    if not isinstance(number, torch.Tensor):
        return torch.tensor(float(number))
    if hasattr(number, "full_tensor"):  # sharded
        number = number.full_tensor()
    return number.detach().float().reshape(())


def stop_at_nothing_supervised(batches: list[BatchFacts], step: int | None) -> NoReturn:
    """Name a micro-batch that nothing is learned from; all processes call this together once any of them has one.

    Args:
        batches: the step's micro-batches on this process.
        step: the optimizer step that is not taken; None where it is a held-out batch of this process alone.

    Raises:
        TrainingStoppedError: always.
    """
    empty = next((facts for facts in batches if facts.supervised == 0), None)
    everyones = [empty] if step is None else distributed.all_gather(empty)
    number, facts = next((number, facts) for number, facts in enumerate(everyones) if facts is not None)
    where = "evaluation" if step is None else f"step {step}"
    raise TrainingStoppedError(
        f"{where}: nothing is supervised in the batch of {_named([facts], number)}: no answer's token is there to "
        f"learn from, and a loss of none is not a number; look with `flashsloth data check`, leave "
        f"them out (leave_out: [numbers], beside their source in the recipe), then --resume"
    )


def stop_at_held_out(bad: list[tuple[BatchFacts, float]], step: int) -> None:
    """Name a held-out batch whose loss is not a number, if any process has one; all call this together.

    Raises:
        TrainingStoppedError: on all of them.
    """
    for number, theirs in enumerate(distributed.all_gather(bad)):
        for facts, loss in theirs:
            raise TrainingStoppedError(
                f"evaluation after step {step}: the loss of {_named([facts], number)} is {loss}, though the weights "
                f"are numbers: see what is in them with `flashsloth data show`, take them out, then --resume"
            )


def stop_at_non_finite(batches: list[BatchFacts], losses: list[float], gradient_norm: float, step: int) -> NoReturn:
    """Name what made a loss or a gradient infinite or NaN; all processes call this together once any has one.

    Raises:
        TrainingStoppedError: always.
    """
    bad = [(facts, loss) for facts, loss in zip(batches, losses, strict=True) if not math.isfinite(loss)]
    everyones = list(enumerate(distributed.all_gather((batches, bad, gradient_norm))))
    for number, (_, theirs, _) in everyones:
        for facts, loss in theirs:
            raise TrainingStoppedError(
                f"step {step}: the loss of {_named([facts], number)} is {loss}; the step was not taken, the weights "
                f"are as they were: {REMEDY}"
            )
    named = "; ".join(_named(theirs, number) for number, (theirs, _, _) in everyones)
    norm = next(norm for _, (_, _, norm) in everyones if not math.isfinite(norm))
    raise TrainingStoppedError(
        f"step {step}: the gradient's norm is {norm}, though every loss is a number, for the batch of {named}; the "
        f"step was not taken, the weights are as they were: {REMEDY}"
    )


def _named(batches: list[BatchFacts], rank: int) -> str:
    where = f" (process {rank})" if distributed.count() > 1 else ""
    ids = [name for facts in batches for name in facts.ids]
    if not ids:
        return f"{sum(facts.samples for facts in batches)} samples without ids{where}"
    more = len(ids) - NAMES_SHOWN
    return f"samples {', '.join(ids[:NAMES_SHOWN])}{f' and {more} more' if more > 0 else ''}{where}"


class WeightsError(FlashSlothError, ValueError):
    """Weights, or what an optimizer keeps of them, are not numbers any more."""

    exit_code = 1


def learned_tensors(model: nn.Module, optimizer: Any) -> Iterator[Named]:
    """What learns, and what its optimizer keeps of it, on this process.

    Args:
        model: whose parameters have names.
        optimizer: torch's own, or what accelerate or DeepSpeed have put around one.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for inner in _torch_optimizers(optimizer):
        parameters = [parameter for group in inner.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            name = names.get(id(parameter), f"share {number} of the weights")  # DeepSpeed's are of many
            yield name, parameter
            for key, value in inner.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor):
                    yield f"the optimizer's {key} of {name}", value


def all_tensors(model: nn.Module) -> Iterator[Named]:
    """A model's parameters and buffers, those at rest included."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def non_finite_names(tensors: Iterable[Named]) -> tuple[list[str], int]:
    """Names of tensors that hold infinity or NaN, and how many tensors there are in all."""
    named = [(name, own_share(tensor)) for name, tensor in tensors]
    held = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not held:
        return [], 0
    device = held[0][1].device
    sums = torch.stack([tensor.sum(dtype=torch.float32).to(device) for _, tensor in held])
    # a sum of numbers may be too large for one
    suspects = [pair for pair, is_number in zip(held, sums.isfinite().tolist(), strict=True) if not is_number]
    return [name for name, tensor in suspects if not bool(tensor.isfinite().all())], len(held)


def check_finite(
    tensors: Iterable[Named], *, step: int, folder: Path, learning_rate: float, device: torch.device
) -> None:
    """Look at tensors of this process after a step; `folder` has the stage's checkpoints. All processes together.

    Raises:
        WeightsError: on all of them, if any process holds infinity or NaN.
    """
    with torch.no_grad():
        bad, count = non_finite_names(tensors)
    if not distributed.all_reduce_sum([float(bool(bad))], device)[0]:
        return
    names, count = next((names, count) for names, count in distributed.all_gather((bad, count)) if names)
    kept = distributed.first_then_all(lambda: whole(folder))
    last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before"
    more = f" and {len(names) - TENSORS_SHOWN} more" if len(names) > TENSORS_SHOWN else ""
    raise WeightsError(
        f"after step {step}, {len(names)} of {count} tensors hold infinity or NaN ({', '.join(names[:TENSORS_SHOWN])}"
        f"{more}): nothing was saved of this step; {last}. Set a lower learning_rate than {learning_rate:g}, then go "
        f"on with --resume"
    )


def own_share(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor this process holds: all of it, or its part of torch's DTensor."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _torch_optimizers(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return getattr(optimizer, "parts", (optimizer,))
