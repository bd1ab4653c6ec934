"""Versions: the package's own, which `pyproject.toml` reads from here, and those of what is installed beside it."""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Iterable
from functools import cache

__version__ = "0.1.0"

OLDEST_AND_NEWEST = {
    "torch": ("2.11", "2.13"),
    "transformers": ("5.17", "5.24"),
    "tokenizers": ("0.23.1", "0.23"),
    "safetensors": ("0.8", "0.8"),
    "numpy": ("2.0", "2.4"),
    "pillow": ("13.0", "13.0"),
    "accelerate": ("1.13", "1.15"),
    "peft": ("0.20", "0.21"),
}
"""Package -> the oldest version that is meant to work, as `pyproject.toml` asks, and the newest one tested."""

logger = logging.getLogger(__name__)


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package that is installed; the others are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache  # once a process
def warn_of_untested_versions() -> None:
    """Say in a line which packages are newer than any that was tested. They may well work, so nothing fails for it."""
    installed = installed_versions(OLDEST_AND_NEWEST)
    newer = [
        f"{name} {version} (tested up to {OLDEST_AND_NEWEST[name][1]})"
        for name, version in installed.items()
        if _release(version) > _release(OLDEST_AND_NEWEST[name][1])
    ]
    if newer:
        logger.warning("newer than was tested: %s; if something fails, try older ones", ", ".join(newer))


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: fixes after them change nothing that was tested."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:2]]
    return (*numbers, 0, 0)[:2]
