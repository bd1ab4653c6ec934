"""docs/finetuning.md, command by command, in small: fewer toys, fewer steps."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from flashsloth.cli.app import main

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "finetuning.md"
RECIPE = ROOT / "examples" / "finetune" / "recipe.yaml"
SMALLER = {
    "python examples/finetune/draw_toys.py": ["--count", "34", "--new", "3"],
    "flashsloth train": ["--set", "stages.0.steps=2", "--set", "stages.0.batch_size=4", "--set", "stages.0.workers=0"],
    "flashsloth eval world": ["--count", "2"],
    "flashsloth data check": ["--workers", "0"],
}
"""How a command begins -> what makes it quick."""


def commands() -> list[str]:
    """Every command of the guide's shell blocks, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def run(command: str) -> None:
    """One of them, in this process."""
    extra = next((more for start, more in SMALLER.items() if command.startswith(start)), [])
    program, *arguments = shlex.split(command)
    if program == "flashsloth":
        assert main([*arguments, *extra]) == 0, command
        return
    script, *arguments = arguments
    before, sys.argv = sys.argv, [script, *arguments, *extra]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv = before


def test_every_command_of_the_guide_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    found = commands()
    for start in ("draw_toys.py", "data table", "train", "merge", "info", "ask", "count_right.py", "eval world"):
        assert any(start in command for command in found), start
    for command in found:
        run(command)
    shown = capsys.readouterr()
    assert "Which shelf?  " in shown.out
    assert "merged, they differ by up to" in shown.err
    assert json.loads(Path("toys/sloth/config.json").read_text(encoding="utf-8"))["dtype"] == "float16"
    assert Path("toys/run/0-instruction/loss.png").is_file()


def test_the_guide_shows_the_recipe_as_it_is() -> None:
    shown = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert yaml.safe_load(shown[0]) == yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
