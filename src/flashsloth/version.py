"""Versions: the package's own, which `pyproject.toml` reads from here, and those of what is installed beside it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

__version__ = "0.1.0"


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package that is installed; the others are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
