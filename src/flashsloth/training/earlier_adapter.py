"""An adapter that a stage trains on, without folding it into its base first.

In: the adapter's folder, and what the stage says of its own. Out: PEFT's model with what the adapter has learned, or an
error that names every key by which the stage would make another adapter of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from safetensors.torch import load_file

from flashsloth.adapters.folder import ADAPTER_WEIGHTS, UNQUANTIZED, AdapterError, AdapterFolder
from flashsloth.adapters.merging import check_base
from flashsloth.training.adapter_settings import TARGETED_PART, AdapterSettings
from flashsloth.training.stages import PARTS

logger = logging.getLogger(__name__)

_LOW_RANK = re.compile(r"(?P<layer>.+)\.lora_A\.weight")
"""A matrix of an adapter, by the name that PEFT saves it under."""


def check_goes_on(before: AdapterFolder, settings: AdapterSettings, trains: tuple[str, ...], names: list[str]) -> None:
    """Refuse to train an adapter on as another one than it is, or beside another base than its own.

    Args:
        before: the adapter.
        settings, trains: the stage's.
        names: full names of the layers that the stage puts an adapter on.

    Raises:
        AdapterError: naming every key that differs.
    """
    check_base(before, before.base_folder())
    layers = {found["layer"] for tensor in before.tensors() if (found := _LOW_RANK.fullmatch(tensor.name))}
    full = before.settings.get("modules_to_save") or []
    parts = sorted([TARGETED_PART, *(part for part, module in PARTS.items() if module in full)])
    held = UNQUANTIZED if before.base is None else before.base.quantize
    compared = (
        ("adapter.rank", before.settings["r"], settings.rank),
        ("adapter.alpha", float(before.settings["lora_alpha"]), settings.scale),
        ("adapter.targets", _last_names(layers), _last_names(names)),
        ("adapter.quantize", held, settings.quantize),
        ("trains", parts, sorted(trains)),
    )
    different = [f"{key} is {now}, that of the adapter {was}" for key, was, now in compared if was != now]
    if different:
        raise AdapterError(
            f"{before.path} cannot be trained on as it is asked to: {'; '.join(different)}: set them to the adapter's, "
            f"or merge it with `flashsloth merge` and start another one from the result"
        )


def take_up(learner: Any, before: AdapterFolder) -> None:
    """Give PEFT's model around a base the weights of an adapter, every one of them.

    Raises:
        AdapterError: if any is missing or too many.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    there = {tensor.name for tensor in before.tensors()}
    odd = sorted(there ^ set(get_peft_model_state_dict(learner, save_embedding_layers=False)))
    if odd:
        raise AdapterError(f"{before.path} does not fit its base: {len(odd)} tensors are missing or left, as {odd[0]}")
    set_peft_model_state_dict(learner, load_file(before.path / ADAPTER_WEIGHTS))
    logger.info("training the adapter of %s on", before.path)


def _last_names(layers: Iterable[str]) -> list[str]:
    """Such as `q_proj`, each once."""
    return sorted({layer.rpartition(".")[2] for layer in layers})


__all__ = ["check_goes_on", "take_up"]
