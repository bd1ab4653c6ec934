"""docs/answering.md, docs/attention.md and the README on asking, run as they stand: what `# ->` promises comes."""

from __future__ import annotations

import ast
import dataclasses
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import flashsloth
from flashsloth.cli import terminal
from flashsloth.cli.app import main
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.kv_cache import round_columns
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.model.configuration_flashsloth import FlashSlothConfig

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "answering.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Ask\n")[1].split("\n## ")[0]
ATTENTION = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
PROMISE = re.compile(r"#\s*->\s*(.+)$")
ELSEWHERE = ("flashsloth verify-batch", "flashsloth chat")
"""Commands that have tests of their own: one takes minutes, one talks to somebody."""


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the pictures that are asked about; and a processor, whose numbers the guide tells."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, picture in {"photo.jpg": "shapes.png", "a.png": "counting.png", "b.png": "browser.png"}.items():
        Image.open(ROOT / "examples" / picture).convert("RGB").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(block: str, names: dict[str, Any]) -> int:
    """Run a block, statement by statement; how many promises it kept."""
    kept = 0
    for statement in ast.parse(block).body:
        source = ast.unparse(statement)
        promise = PROMISE.search(block.splitlines()[(statement.end_lineno or 0) - 1])
        if promise is None:
            exec(source, names)
            continue
        assert eval(source, names) == ast.literal_eval(promise[1]), source
        kept += 1
    return kept


@pytest.mark.parametrize(("text", "promises"), [(GUIDE, 20), (README, 0)], ids=["guide", "readme"])
def test_python(text: str, promises: int) -> None:
    names: dict[str, Any] = {}
    assert sum([run(block, names) for block in blocks(text, "python")]) >= promises
    assert isinstance(names["sloth"], FlashSloth)


def test_where_it_looked() -> None:
    sloth = flashsloth.load()
    asked = [{"role": "user", "content": [{"type": "image", "path": "photo.jpg"}, {"type": "text", "text": "What?"}]}]
    inputs = sloth.processor.apply_chat_template(
        asked, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    names = {"sloth": sloth, "model": sloth.model, "inputs": inputs}
    for block in blocks(ATTENTION, "python"):
        run(block, names)
    assert names["found"].share == pytest.approx(1)


@pytest.mark.parametrize("text", [GUIDE, README, ATTENTION], ids=["guide", "readme", "attention"])
def test_commands(text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sloth = flashsloth.load(device="cpu")
    monkeypatch.setattr(terminal, "load_quietly", lambda *_: sloth)  # once
    commands = [line for block in blocks(text, "bash") for line in block.splitlines()]
    commands = [command for command in commands if not command.startswith(ELSEWHERE)]
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "flashsloth"
        assert main(arguments) == 0, command
        assert capsys.readouterr().out, command


def test_the_example_of_choices(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path("examples/what_is_there.py", run_name="__main__")
    [row] = [line for line in capsys.readouterr().out.splitlines() if "shapes.png" in line]
    assert re.findall(r"(\d+)%", row)[0] == "100"


def test_everything_is_in_the_guide() -> None:
    methods = [name for name, value in vars(FlashSloth).items() if callable(value) and name[0] != "_"]
    for internal in ("collector", "prepare"):  # for the project's own callers
        methods.remove(internal)
    fields = [one.name for kind in (EngineConfig, SamplingParams) for one in dataclasses.fields(kind)]
    for name in [*methods, *fields, *FinishReason]:
        assert re.search(rf"\b{name}\b", GUIDE), name


def test_memory_of_the_published_model() -> None:
    text: Any = FlashSlothConfig().text_config
    heads, width = text.num_attention_heads, text.hidden_size // text.num_attention_heads
    position = text.num_hidden_layers * 2 * heads * width * 2  # keys and values in bfloat16
    assert f"{position:,} bytes in FlashSloth-3.2B" in GUIDE
    assert f"({text.num_hidden_layers} layers of {heads} heads, a key and a\nvalue of {width} numbers" in GUIDE
    most = 150 + 512 - 1
    assert f"512 tokens, {most} positions." in GUIDE
    assert f"{round_columns(most)}, {round_columns(most) * position / 1e6:.0f} MB" in GUIDE
