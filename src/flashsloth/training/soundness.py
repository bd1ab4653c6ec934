"""Whether weights and the optimizer's state are numbers: looked at before they are kept.

In: a model and its optimizer, of every process. Out: nothing, or a :class:`WeightsError` on all processes alike, which
names what holds no numbers and the last checkpoint that does. So a checkpoint that is there is one to go back to.

Each tensor is read once, by adding it up, and one number of each comes from the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flashsloth.training import ranks
from flashsloth.training.checkpoints import whole

NAMES_SHOWN = 3
"""Tensors that an error names."""


class WeightsError(ValueError):
    """Weights, or what an optimizer keeps of them, are no numbers any more."""

    exit_code = 1


Named = tuple[str, torch.Tensor]


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


def no_numbers(tensors: Iterable[Named]) -> tuple[list[str], int]:
    """Names of tensors that hold infinity or NaN, and how many tensors there are in all."""
    named = [(name, _own_part(tensor)) for name, tensor in tensors]
    held = [(name, tensor) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if not held:
        return [], 0
    device = held[0][1].device
    sums = torch.stack([tensor.sum(dtype=torch.float32).to(device) for _, tensor in held])
    # a sum of numbers may be too large for one
    suspects = [pair for pair, is_number in zip(held, sums.isfinite().tolist(), strict=True) if not is_number]
    return [name for name, tensor in suspects if not bool(tensor.isfinite().all())], len(held)


def check_numbers(
    tensors: Iterable[Named], *, step: int, folder: Path, learning_rate: float, device: torch.device
) -> None:
    """All processes together.

    Args:
        tensors: of this process.
        step: the last one that is done.
        folder: that of the stage's checkpoints.
        learning_rate: of the stage.
        device: of this process.

    Raises:
        WeightsError: on all of them, if any process holds what is no number.
    """
    with torch.no_grad():
        bad, count = no_numbers(tensors)
    if not ranks.summed([float(bool(bad))], device)[0]:
        return
    names, count = next((names, count) for names, count in ranks.gathered((bad, count)) if names)
    kept = ranks.first_then_all(lambda: whole(folder))
    last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    raise WeightsError(
        f"after step {step}, {len(names)} of {count} tensors hold infinity or NaN ({', '.join(names[:NAMES_SHOWN])}"
        f"{more}): nothing was saved of this step; {last}. Set a lower learning_rate than {learning_rate:g}, then go "
        f"on with --resume"
    )


def _own_part(tensor: torch.Tensor) -> torch.Tensor:
    """This process's, of a tensor in shares."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()


def _torch_optimizers(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return getattr(optimizer, "parts", (optimizer,))


__all__ = ["WeightsError", "all_tensors", "check_numbers", "learned_tensors", "no_numbers"]
