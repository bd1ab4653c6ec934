"""Changes of single values of a recipe: `stages.0.steps=100`.

In: the tree that YAML read, and `dotted.key=value`. Out: the tree, changed.
"""

from __future__ import annotations

from typing import Any

import yaml

from flashsloth.training.recipe_fields import RecipeError


def override(tree: dict[str, Any], change: str) -> None:
    """Set one dotted key in the raw tree."""
    path, separator, text = change.partition("=")
    if not separator or not path:
        raise RecipeError(f"override {change!r}: expected key=value, such as stages.0.steps=100")
    node: Any = tree
    *parents, last = path.split(".")
    for part in parents:
        node = _child(node, part, path)
    value = yaml.safe_load(text)
    if isinstance(node, list):
        node[_list_index(node, last, path)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise RecipeError(f"override {path!r}: {last!r} is inside a {type(node).__name__}, not a group of keys")


def _child(node: Any, part: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, path)]
    if isinstance(node, dict):
        return node.setdefault(part, {})
    raise RecipeError(f"override {path!r}: {part!r} is inside a {type(node).__name__}, not a group of keys")


def _list_index(node: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise RecipeError(f"override {path!r}: {part!r} does not name one of {len(node)} items (0..{len(node) - 1})")
    return int(part)


__all__ = ["override"]
