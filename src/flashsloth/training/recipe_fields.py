"""Values of a YAML file as the fields of dataclasses, each checked against its annotation.

In: groups of keys, as YAML read them, and where they stand. Out: dataclasses. Every mistake is a :class:`RecipeError`
that names the key, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any


class RecipeError(ValueError):
    """A mistake in a recipe."""


def filled(kind: type, raw: Any, where: str) -> Any:
    """A dataclass with a group's values, and its defaults where the group is silent."""
    if not isinstance(raw, dict):
        raise RecipeError(f"{where} is {raw!r}, expected keys {[f.name for f in dataclasses.fields(kind)]}")
    check_keys(raw, {f.name for f in dataclasses.fields(kind)}, where)
    return replaced(kind(), raw, where)


def replaced(value: Any, changes: dict[str, Any], where: str) -> Any:
    """A dataclass with some fields changed, each checked against its annotation."""
    types = {f.name: str(f.type) for f in dataclasses.fields(value)}
    checked = {key: typed(item, types[key], f"{where}.{key}") for key, item in changes.items()}
    return dataclasses.replace(value, **checked)


def typed(value: Any, annotation: str, where: str) -> Any:
    """A YAML value as its field wants it: ints for floats, numbers written like 1e-3 (YAML reads those as text)."""
    options = [option.strip() for option in annotation.split("|")]
    if value is None and "None" in options:
        return None
    if "bool" in options:
        accepted = isinstance(value, bool) or ("str" in options and isinstance(value, str))
    elif "float" in options:
        try:
            value, accepted = float(value), not isinstance(value, bool)
        except (TypeError, ValueError):
            accepted = False
    elif "int" in options:
        accepted = isinstance(value, int) and not isinstance(value, bool)
    elif "str" in options:
        accepted = isinstance(value, str)
    else:
        return value
    if not accepted:
        raise RecipeError(f"{where} is {value!r}, expected {annotation}")
    return value


def at_least(value: Any, least: float, where: str) -> Any:
    """The value, which may be None, unless it is too small."""
    if value is not None and value < least:
        raise RecipeError(f"{where} is {value}, expected at least {least}")
    return value


def check_keys(tree: dict[str, Any], known: set[str], where: str) -> None:
    """Refuse keys that nobody knows, with the one that was probably meant."""
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {sorted(known)}"
            raise RecipeError(f"{where} has no key {key!r}: {hint}")


__all__ = ["RecipeError", "at_least", "check_keys", "filled", "replaced", "typed"]
