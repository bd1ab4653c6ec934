"""docs/architecture.md names files and functions that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "flashsloth"
NAMED = re.compile(r"`((?:[\w]+/)*\w+\.py)(?:: ([\w.]+))?`")
FOLDERS = re.compile(r"`((?:[\w]+/)+)`")
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Functions and classes that a body defines, methods after their class."""
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found |= names(node.body, f"{prefix}{node.name}.")
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(TEXT))))
def test_what_is_named_is_there(file: str, name: str) -> None:
    path = next(path for path in (PACKAGE / file, ROOT / file) if path.is_file())
    if name:
        assert name in names(ast.parse(path.read_text(encoding="utf-8")).body)


@pytest.mark.parametrize("folder", sorted(set(FOLDERS.findall(TEXT))))
def test_folders_are_there(folder: str) -> None:
    assert any((root / folder).is_dir() for root in (PACKAGE, ROOT, ROOT / "src"))
