"""Versions of what is installed, and of nothing else; which ones are tested, and a word where one is newer."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path

import pytest
import torch

from flashsloth import version
from flashsloth.version import OLDEST_AND_NEWEST, installed_versions, warn_of_untested_versions

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_only_what_is_installed_has_a_version() -> None:
    assert installed_versions(["torch", "no-such-package"]) == {"torch": torch.__version__}


def test_the_oldest_versions_are_those_that_the_package_asks_for() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    asked = {match[1]: match[2] for entry in wanted if (match := re.match(r"([\w-]+)>=([\d.]+)", entry))}
    assert {name: asked[name] for name in OLDEST_AND_NEWEST} == {
        n: oldest for n, (oldest, _) in OLDEST_AND_NEWEST.items()
    }


@pytest.mark.parametrize("installed", ["5.25.0", "5.25.0.dev0", "6.0"])
def test_a_newer_version_is_named_once_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: str
) -> None:
    monkeypatch.setattr(version, "installed_versions", lambda names: {"transformers": installed, "torch": "2.13.0+cpu"})
    warn_of_untested_versions.cache_clear()
    with caplog.at_level(logging.WARNING, logger="flashsloth.version"):
        warn_of_untested_versions()
        warn_of_untested_versions()
    (record,) = caplog.records
    message = record.getMessage()
    assert f"transformers {installed}" in message
    assert "5.24" in message
    assert "torch" not in message
    assert "\n" not in message


def test_tested_versions_and_their_fixes_pass_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fixes = {name: f"{newest}.9" for name, (_, newest) in OLDEST_AND_NEWEST.items()}
    monkeypatch.setattr(version, "installed_versions", lambda names: fixes)
    warn_of_untested_versions.cache_clear()
    warn_of_untested_versions()
    assert not caplog.records
