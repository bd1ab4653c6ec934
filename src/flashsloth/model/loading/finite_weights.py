"""Whether weights are numbers that a model can compute with: floating point, and finite.

In: tensors in files, or those of a model that has just been loaded. Out: what is wrong with them, a line each; nothing
where all is well.

    in files     every tensor is read once        `flashsloth info`, adapters
    in a model   every tensor is read once        loading; it is in memory already, so no file is read again

NaN and infinity show in the least and the greatest number, which one pass finds without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flashsloth.model.loading.safetensors_files import TORCH_DTYPES, StoredTensor, load_tensors

if TYPE_CHECKING:
    import torch

PLAIN_FLOATS = ", ".join(TORCH_DTYPES)
PIECE_BYTES = 1 << 22
"""What is read of a file at a time: whole numbers of every type, in a processor's cache."""

ADVICE = "copy or download it again, or go back to a training checkpoint that was sound"
"""What to do about weights that are not."""


def needless_quantization(config: Mapping[str, Any], tensors: Iterable[StoredTensor]) -> list[str]:
    """A line where a configuration says that the weights are quantized, and they are not.

    Args:
        config: as config.json has it.
        tensors: what is stored.
    """
    said = config.get("quantization_config")
    if said is None or wrong_dtypes(tensors):
        return []
    kind = said.get("quant_method") if isinstance(said, dict) else said
    return [f"config.json has a quantization_config ({kind!r}), but the weights are plain numbers: take it out"]


def wrong_dtypes(tensors: Iterable[StoredTensor]) -> list[str]:
    """Tensors of files that are no plain floating-point numbers, by their headers."""
    return [
        f"{tensor.name} in {tensor.file.name} is {tensor.dtype}, expected one of {PLAIN_FLOATS}"
        for tensor in tensors
        if tensor.dtype not in TORCH_DTYPES
    ]


def non_finite_tensors(tensors: Iterable[StoredTensor]) -> list[str]:
    """Floating-point tensors of files that hold NaN or infinity; every one is read."""
    found = []
    for tensor in tensors:
        if tensor.dtype in TORCH_DTYPES and not _finite_in_file(tensor):
            fault = describe_non_finite(load_tensors([tensor])[tensor.name])
            found += [f"{tensor.name} in {tensor.file.name} holds {fault}"] if fault else []
    return found


def _finite_in_file(tensor: StoredTensor) -> bool:
    """Whether every number of a stored tensor is finite, read a piece at a time: no memory holds it, or is mapped."""
    import torch

    dtype = getattr(torch, TORCH_DTYPES[tensor.dtype])
    buffer = memoryview(bytearray(min(PIECE_BYTES, tensor.nbytes)))
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for start in range(0, tensor.nbytes, PIECE_BYTES):
            piece = buffer[: tensor.nbytes - start]
            if stream.readinto(piece) < len(piece) or not all_finite(torch.frombuffer(piece, dtype=dtype)):
                return False
    return True


def non_finite_weights(model: Any, stored: Mapping[str, StoredTensor]) -> list[str]:
    """Parameters and buffers of a model that hold NaN or infinity.

    Args:
        model: as it was loaded; what is not in memory, or in a quantized form, is left out.
        stored: our name -> the tensor in its file, as far as that is known.
    """
    found = []
    for name, tensor in model.state_dict().items():
        fault = describe_non_finite(tensor)
        if not fault:
            continue
        source = stored.get(name)
        place = f" in {source.file.name}" if source is not None else ""
        if (
            source is not None
            and source.dtype in TORCH_DTYPES
            and not describe_non_finite(load_tensors([source])[source.name])
        ):
            found.append(f"{name}{place} is {source.dtype} and too large for {tensor.dtype}: load it in another dtype")
        else:
            found.append(f"{name}{place} holds {fault}")
    return found


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether every number of a tensor, not an empty one, is neither NaN nor infinite."""
    import torch

    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def describe_non_finite(tensor: torch.Tensor) -> str:
    """How much of a floating-point tensor is not finite; empty for nothing, and for what cannot be told."""
    import torch

    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or tensor.device.type == "meta" or not tensor.is_floating_point() or tensor.itemsize == 1:
        return ""
    if tensor.layout != torch.strided or not tensor.numel() or all_finite(tensor.detach()):
        return ""
    nans, wrong = int(tensor.isnan().sum()), int((~tensor.isfinite()).sum())
    kinds = [f"{nans:,} NaN"] * (nans > 0) + [f"{wrong - nans:,} infinite"] * (wrong > nans)
    return f"{' and '.join(kinds)} of {tensor.numel():,} numbers" if kinds else ""
