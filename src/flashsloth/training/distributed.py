"""What the processes of one run tell each other. A process that is alone waits for nobody.

In: values of this process. Out: what the others said. A run has a process for each device, numbered by rank; `torchrun`
starts them and says so in the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

RANK_VARIABLE, WORLD_VARIABLE = "RANK", "WORLD_SIZE"
"""Where torchrun says which process this is, of how many."""

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it takes them for dead: Trainer's own measure."""
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
"""What has torchrun open a new place to meet at every restart."""


def start() -> None:
    """Meet the other processes that torchrun started, if there are any: over NCCL on accelerators, else over gloo."""
    from accelerate import PartialState

    if count() > 1:
        PartialState(cpu=not torch.cuda.is_available(), backend=backend(), timeout=PATIENCE, **_apart_from_the_dead())


def _apart_from_the_dead() -> dict[str, Any]:
    """Where processes meet that torchrun has started again; nothing for the usual place.

    torchrun's own store outlives a restart, and so do the addresses that dead processes left in it: who is early reads
    them and calls in vain (pytorch/pytorch#135712). On one node all processes agree on the number of restarts, and meet
    under it. Nodes may differ in it, so there torchrun has to be told.
    """
    variables = os.environ
    if variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    if variables["LOCAL_WORLD_SIZE"] != variables[WORLD_VARIABLE]:
        if is_first() and variables.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
            logger.warning("to start again over several nodes, torchrun needs %s in its environment on each", OWN_STORE)
        return {}
    port = int(variables["MASTER_PORT"])
    store = distributed.TCPStore(variables["MASTER_ADDR"], port, count(), is_master=False, timeout=PATIENCE)
    restart = variables["TORCHELASTIC_RESTART_COUNT"]
    return {"store": distributed.PrefixStore(f"restart-{restart}", store), "rank": rank(), "world_size": count()}


def backend() -> str | None:
    """What processes without an accelerator talk over, if there are several; None for torch's choice."""
    return "gloo" if count() > 1 and not torch.cuda.is_available() else None


def rank() -> int:
    """This process's number."""
    return distributed.get_rank() if _together() else int(os.environ.get(RANK_VARIABLE, "0"))


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _together() else int(os.environ.get(WORLD_VARIABLE, "1"))


def is_first() -> bool:
    """Whether this is the process that writes files and talks."""
    return rank() == 0


def wait() -> None:
    """Until all are here."""
    if _together():
        distributed.barrier()


def broadcast(value: Value) -> Value:
    """What the first process has for `value`, on all."""
    if not _together():
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(value: Value) -> list[Value]:
    """Every process's `value`, by rank, on all."""
    if not _together():
        return [value]
    values: list[Value] = [value] * count()
    distributed.all_gather_object(values, value)
    return values


def all_reduce_sum(values: list[float], device: torch.device) -> list[float]:
    """Each number's sum over the processes, the same on all."""
    if not _together():
        return values
    numbers = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(numbers)
    return numbers.tolist()


def first_then_all(act: Callable[[], Value]) -> Value:
    """Let the first process act, and give all what came of it; what it raised, all raise."""
    result: Value | None = None
    failure: Exception | None = None
    if is_first():
        try:
            result = act()
        except Exception as error:  # raised below, everywhere: the others must not wait for a process that is gone
            failure = error
    result, failure = broadcast((result, failure))
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
