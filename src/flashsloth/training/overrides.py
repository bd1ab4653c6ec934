"""Changes of single values of a recipe: `stages.0.steps=100`, `stages.instruction.steps=100`.

In: the tree that YAML read, and `dotted.key=value`. Out: the tree, changed.
"""

from __future__ import annotations

from typing import Any

from flashsloth.yaml_file import parse_yaml


class OverrideError(ValueError):
    """A change that cannot be made."""


def override(tree: dict[str, Any], change: str) -> None:
    """Set one dotted key in the raw tree.

    Raises:
        OverrideError: if it names no place, or its value is not YAML.
    """
    path, separator, text = change.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise OverrideError(f"found {change!r}, expected key=value, such as stages.0.steps=100")
    node: Any = tree
    *parents, last = keys
    value = parse_yaml(text, f"the value of {path}", OverrideError)
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[_key(node, part, path)]
    node[_key(node, last, path)] = value


def _key(node: Any, part: str, path: str) -> str | int:
    """A part of a path as the key of a group, or the number of a list's item."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise OverrideError(f"{path}: {part!r} is inside a {type(node).__name__}, not a group of keys")
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    named = [index for index, item in enumerate(node) if isinstance(item, dict) and item.get("stage") == part]
    if len(named) > 1:
        raise OverrideError(f"{path}: several items are called {part!r}: expected one of the numbers {named}")
    if not named:
        raise OverrideError(f"{path}: {part!r} does not name one of {len(node)} items (0..{len(node) - 1})")
    return named[0]


__all__ = ["OverrideError", "override"]
