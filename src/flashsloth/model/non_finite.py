"""Answers that would be made of NaN or infinity: the layer that they begin in, and an error that names it.

In: a pass whose logits are not finite, and a way to run it again. Out: a :class:`NonFiniteError`.

An answer is looked at once a step, at its logits, which costs some twenty microseconds; layers are looked at only when
these have failed, in a second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.model.loading.finite_weights import all_finite, describe_non_finite

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
            if any(_is_odd(tensor) for tensor in _tensors(output)):
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


def _is_odd(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and not all_finite(tensor.detach())


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
