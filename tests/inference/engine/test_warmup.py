"""Warming up answers what later answers are like, and says what it took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashsloth.cli.app import main
from flashsloth.errors import PromptError
from flashsloth.inference.pipeline import FlashSloth


def test_nothing_is_kept_of_warming_up(sloth: FlashSloth) -> None:
    took = sloth.warm_up(batch=3)
    assert took.seconds > 0
    assert took.recorded == 0  # on a processor
    assert len(sloth.pictures) == 0
    with pytest.raises(PromptError, match="batch is 0"):
        sloth.warm_up(0)


def test_the_command(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["warmup", "--model", str(checkpoint), "--device", "cpu"]
    assert main(arguments) == 0
    assert "ready after" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert main([*arguments, "--batch", "0"]) == 2
    assert "batch is 0" in capsys.readouterr().err
