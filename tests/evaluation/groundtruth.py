"""Recorded answers with known scores. They are not part of this repository; they are looked for beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "groundtruth"
needed = pytest.mark.skipif(
    not FOLDER.is_dir() and not os.environ.get("CI"), reason=f"recorded answers are not at {FOLDER}"
)


def lines(name: str) -> list[Any]:
    """A file of JSON lines."""
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def whole(name: str) -> Any:
    """A JSON file."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))
