"""A process that trains one model for some steps: `python -m flashsloth.benchmark.training_worker`.

In: requests on stdin, a JSON object a line (see `worker.py`): `{"do": "measure", "job": {...}, "steps": 3}`. Out: its
seconds a step, and what it held: the process (resident set), and torch's tensors, each at most. Memory that building
the model took is not counted, what the weights take is.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from flashsloth.benchmark.timing import CpuContention
from flashsloth.benchmark.training import TrainingJob
from flashsloth.benchmark.worker import serve_process
from flashsloth.errors import BenchmarkError
from flashsloth.planning.machine import peak_bytes, reset_peak
from flashsloth.planning.memory import LiveMemory

LEARNING_RATE = 1e-5


class TrainingWorker:
    """What the request does."""

    def answer(self, request: dict[str, Any]) -> Any:
        """The result of a request.

        Raises:
            BenchmarkError: for an unknown one.
        """
        if request.get("do") != "measure":
            raise BenchmarkError(f"request is {request.get('do')!r}; expected measure")
        return measure(TrainingJob(**request["job"]), int(request["steps"]))


def measure(job: TrainingJob, steps: int) -> dict[str, Any]:
    """Train for one step that warms up, `steps` that are timed, and one whose tensors are counted."""
    model = job.make()
    batch = job.batch(model.config)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LEARNING_RATE, fused=True)
    device, watch = torch.device("cpu"), CpuContention()
    reset_peak(device)
    _step(model, batch, optimizer)
    since, seconds = watch.read(), []
    for _ in range(steps):
        start = time.perf_counter()
        _step(model, batch, optimizer)
        seconds.append(time.perf_counter() - start)
    others, resident = watch.others_share(since), peak_bytes(device)
    state = [value for values in optimizer.state.values() for value in values.values()]
    memory = LiveMemory(model)
    memory.leave_out(value for value in state if isinstance(value, torch.Tensor))
    memory.leave_out(batch.values())
    with memory:
        _step(model, batch, optimizer)
    return {
        "seconds": seconds,
        "others_share": others,
        "resident_bytes": resident,
        "weight_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "gradient_bytes": sum(parameter.nbytes for parameter in learning),
        "optimizer_bytes": sum(value.nbytes for value in state if isinstance(value, torch.Tensor)),
        "step_bytes": memory.peak,
        "positions": batch["input_ids"].shape[1],
        "parameters": model.num_parameters(),
        "learning": sum(parameter.numel() for parameter in learning),
        "threads": torch.get_num_threads(),
    }


def _step(model: Any, batch: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Be a worker."""
    serve_process(TrainingWorker())


if __name__ == "__main__":
    main()
