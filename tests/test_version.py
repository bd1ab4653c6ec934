"""Versions of what is installed, and of nothing else."""

from __future__ import annotations

import torch

from flashsloth.version import installed_versions


def test_only_what_is_installed_has_a_version() -> None:
    assert installed_versions(["torch", "no-such-package"]) == {"torch": torch.__version__}
