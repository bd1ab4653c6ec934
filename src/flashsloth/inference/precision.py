"""Where a model runs and in what precision.

In: what the user asked for ("auto" or a name) and what the checkpoint stores. Out: a torch device and dtype.
"""

from __future__ import annotations

import torch

from flashsloth.inference.errors import LoadError
from flashsloth.speed.abilities import multiplies_bfloat16

AUTO = "auto"
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
LARGE_BYTES = 1 << 30
"""Weights of half-precision checkpoints beyond this stay halved on a processor; below, float32 costs nothing."""


def choose_device(device: str | torch.device) -> torch.device:
    """The device asked for, or with "auto" the best there is: cuda, then mps, then cpu.

    Raises:
        LoadError: if there is no such device.
    """
    if device == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise LoadError(f"device is {device!r}; expected auto, cpu, cuda, cuda:0 or mps") from error
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if chosen.type not in found:
        raise LoadError(f"device is {str(device)!r}, which models are not run on here; expected {' or '.join(found)}")
    if (chosen.index or 0) >= found[chosen.type]:
        here = ", ".join(name for name, count in found.items() if count)
        raise LoadError(f"device {str(device)!r} is not available; this machine and this torch have: {here}")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device, stored: torch.dtype, stored_bytes: int) -> torch.dtype:
    """The precision asked for, or with "auto" the one that is right and fast on `device`.

    On an accelerator bfloat16: as fast as float16 there, and Phi's attention scores overflow float16. On a processor
    float32, unless a large checkpoint is stored in half the bits and the processor multiplies bfloat16 itself.

    Raises:
        LoadError: if there is no such precision.
    """
    if dtype == AUTO:
        halved = stored.itemsize < torch.float32.itemsize and stored_bytes > LARGE_BYTES
        on_accelerator = device.type != "cpu"
        return torch.bfloat16 if on_accelerator or (halved and multiplies_bfloat16()) else torch.float32
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise LoadError(f"dtype is {dtype!r}; expected auto, {', '.join(list(DTYPES)[:3])} or their short names")
    return chosen
