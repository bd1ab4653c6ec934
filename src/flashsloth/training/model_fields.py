"""The keys of a recipe's `model.config`, which transformers would take whatever they are called.

In: the group as the recipe has it. Out: nothing; or every key that no configuration has, with the one that was meant.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.strict_model import found, listed
from flashsloth.training.recipe_fields import RecipeError

PARTS = ("vision_config", "text_config")
ALIKE = 0.85
"""How near a key of a part has to be to a known one to be taken for a slip: parts may have fields of older versions."""


def check_model_fields(fields: dict[str, Any]) -> None:
    """Refuse keys that would be taken and have no effect.

    Raises:
        RecipeError: listing them.
    """
    known = [field.name for field in dataclasses.fields(FlashSlothConfig)]
    mistakes = []
    for key in fields:
        if key not in (*known, "model_type"):
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            mistakes.append(f"{key}: unknown key, {hint}")
    for part in PARTS:
        group = fields.get(part, {})
        if not isinstance(group, dict):
            mistakes.append(f"{part}: found {found(group)}, expected a group of keys")
            continue
        for key, near in _slips(group):
            mistakes.append(f"{part}.{key}: unknown key, did you mean {near}?")
    if mistakes:
        raise RecipeError(listed("the recipe", [f"model.config.{mistake}" for mistake in mistakes]))


def _slips(group: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys of a part that its configuration does not have, and the one that each is like."""
    name = group.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        return []  # which the configuration says itself
    kind: Any = CONFIG_MAPPING[name]
    if not dataclasses.is_dataclass(kind):
        return []
    known = [*(field.name for field in dataclasses.fields(kind)), *CONFIG_MAPPING[name].attribute_map]
    unknown = [str(key) for key in group if key not in known]
    return [(key, near) for key in unknown for near in difflib.get_close_matches(key, known, n=1, cutoff=ALIKE)]


__all__ = ["check_model_fields"]
