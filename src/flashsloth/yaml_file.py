"""YAML that people write: recipes, experiments, questions, and values after `--set`.

In: a path, or text. Out: what stands there; or one line about why nothing can be read. Differs from PyYAML in two
things: `1e-3` is a number, as YAML 1.2 has it; and a key that stands twice in a group is an error, where the first
value would be lost.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FLOAT_TAG, MERGE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
"""Numbers that PyYAML takes for text."""
_STARTS = list("-+.0123456789")


class _Loader(yaml.SafeLoader):
    """PyYAML's, stricter."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # of a name or None, whatever types-PyYAML says
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        "while reading a group of keys",
                        node.start_mark,
                        f"{key.value!r} is there twice",
                        key.start_mark,
                    )
                seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which puts text that looks like `1e-3` into quotation marks."""


_Loader.add_implicit_resolver(FLOAT_TAG, _EXPONENT, _STARTS)
_Dumper.add_implicit_resolver(FLOAT_TAG, _EXPONENT, _STARTS)


def read_yaml(file: Path, what: str, example: str, error: type[ValueError]) -> Any:
    """What stands in a YAML file.

    Args:
        file: its path.
        what: what it should be, as in "recipe".
        example: where one can be seen.
        error: what is raised.

    Raises:
        error: if there is no such file, or it is not YAML.
    """
    if not file.is_file():
        raise error(f"no {what} at {file}: expected a YAML file, such as {example}")
    try:
        text = file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as cause:
        raise error(f"{file} cannot be read: {' '.join(str(cause).split())}") from cause
    return parse_yaml(text, str(file), error)


def parse_yaml(text: str, where: str, error: type[ValueError]) -> Any:
    """What stands in a text.

    Args:
        text: YAML.
        where: it stands.
        error: what is raised.

    Raises:
        error: if it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as cause:  # ValueError: a date that no calendar has
        raise error(f"{where} is not YAML: {' '.join(str(cause).split())}") from cause


def write_yaml(tree: Any) -> str:
    """As text that :func:`parse_yaml` reads as the same."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


__all__ = ["parse_yaml", "read_yaml", "write_yaml"]
