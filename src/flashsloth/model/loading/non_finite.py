"""NaN and infinity: in weights, in files or in a model that has just been loaded; and in passes, layer by layer.

In: tensors. Out: what is wrong with them, a line each; nothing where all is well. Weights in files are read once, a
piece at a time (`flashsloth info`, adapters); those of a model are in memory already, so no file is read again. NaN and
infinity show in the least and the greatest number, which one pass finds without a copy.

In: a pass whose logits are not finite, and a way to run it again. Out: a :class:`NonFiniteError` that names the layer
they begin in. An answer is looked at once a step, at its logits, which costs some twenty microseconds; layers are
looked at only when these have failed, in a second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.model.loading.safetensors_files import TORCH_DTYPES, StoredTensor, load_tensors

PLAIN_FLOATS = ", ".join(TORCH_DTYPES)
PIECE_BYTES = 1 << 22
"""What is read of a file at a time: whole numbers of every type, in a processor's cache."""

ADVICE = "copy or download it again, or go back to a training checkpoint that was sound"
"""What to do about weights that are not."""
_PARTS = {
    "vision_tower": "the vision encoder",
    "spatial_attention_pooling": "SAP",
    "projector": "the projector",
    "query_tokens": "the query tokens",
    "embedded_query": "EmbQ",
    "language_model": "the language model",
    "lm_head": "the language model's head",
}
"""How a part's modules are named -> what the part is."""


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
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def describe_non_finite(tensor: torch.Tensor) -> str:
    """How much of a floating-point tensor is not finite; empty for nothing, and for what cannot be told."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or tensor.device.type == "meta" or not tensor.is_floating_point() or tensor.itemsize == 1:
        return ""
    if tensor.layout != torch.strided or not tensor.numel() or all_finite(tensor.detach()):
        return ""
    nans, wrong = int(tensor.isnan().sum()), int((~tensor.isfinite()).sum())
    kinds = [f"{nans:,} NaN"] * (nans > 0) + [f"{wrong - nans:,} infinite"] * (wrong > nans)
    return f"{' and '.join(kinds)} of {tensor.numel():,} numbers" if kinds else ""


class NonFiniteError(FlashSlothError, ValueError):
    """A model computed NaN or infinity."""


class NonFinitePass(Exception):  # noqa: N818 - a word between two functions, which explain it
    """Logits that are not finite, not yet explained."""


class _Found(Exception):  # noqa: N818 - it ends a pass, and is no error
    """The first module with an output that is not finite."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(name)
        self.name, self.module = name, module


def require_finite(logits: torch.Tensor, model: Any, again: Callable[[], Any]) -> None:
    """Refuse logits that are not finite.

    Args:
        logits: float [B, V], as the model made them.
        model: what made them.
        again: makes them once more.

    Raises:
        NonFiniteError: naming the first layer whose output is not finite.
    """
    if not all_finite(logits):
        raise explained(model, again)


def explained(model: Any, again: Callable[[], Any]) -> NonFiniteError:
    """The error of a pass that was not finite, which is run once more to see where it begins."""
    try:
        with _watched(model), torch.no_grad():
            again()
    except _Found as found:
        return NonFiniteError(_message(model, found.name, found.module))
    except Exception:
        pass
    return NonFiniteError(f"the model computed NaN or infinity in {model.dtype}, {_advice(model, None)}")


@contextmanager
def _watched(model: nn.Module) -> Iterator[None]:
    """Let every module's output be looked at, the innermost first."""

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            floats = (tensor for tensor in _tensors(output) if tensor.is_floating_point() and tensor.numel())
            if not all(all_finite(tensor.detach()) for tensor in floats):
                raise _Found(name, module)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, (tuple, list, dict)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _message(model: Any, name: str, module: nn.Module) -> str:
    part = next((what for key, what in _PARTS.items() if key in name.split(".")), "the model")
    return (
        f"the model computed NaN or infinity in {model.dtype}: the first layer with such an output is {name} "
        f"({type(module).__name__}, in {part}); {_advice(model, module)}"
    )


def _advice(model: Any, module: nn.Module | None) -> str:
    if module is not None:
        held = [*module.named_parameters(), *module.named_buffers()]
        if odd := next((name for name, tensor in held if describe_non_finite(tensor)), None):
            return f"its {odd} is not finite itself: copy the checkpoint again, or go back to one that was sound"
        if (
            any(type(tensor) not in (torch.Tensor, nn.Parameter) for _, tensor in held)
            or "Int" in type(module).__name__
        ):
            return "its weights are quantized: load the model without quantization, or in bfloat16"
    if model.dtype == torch.float16:
        return "float16 holds nothing beyond 65504: load the model in bfloat16 or float32"
    return "load the model in float32 and without quantization; if it stays, the checkpoint is damaged"
