"""`flashsloth plan RECIPE.yaml`: what training takes on each device, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from flashsloth.cli.app import main

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = """
model: {path: {model}}
stages:
  - {stage: alignment, batch_size: 16, micro_batch_size: 4, data: [{json: x}], feature_cache: {folder: f, max_gb: 1}}
  - {stage: instruction, template: chat, batch_size: 16, micro_batch_size: 2, data: [{json: x}], engine: {kind: fsdp2}}
  - {stage: encoder, data: [{world: 1, count: 4}]}
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line must be broken."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def recipe(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> str:
    shallow = {"text_config": {**tiny.TEXT, "num_hidden_layers": 2}, "embq_layer": 1}
    tiny.make_config(tiny_tokenizer, **shallow).save_pretrained(tmp_path / "model")
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("{model}", str(tmp_path / "model")), encoding="utf-8")
    return str(file)


def test_the_table(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", recipe, "--devices", "2", "--memory", "24", "--rate", "100"]) == 0
    out = capsys.readouterr().out
    assert "alignment: " in out
    assert "on 2 devices (ddp)" in out
    assert "on 2 devices (fsdp2)" in out
    for part in ("weights", "gradients", "optimizer", "activations", "communication", "in all", "of 24 GB"):
        assert part in out
    assert out.count("samples a second") == 2
    assert "without activation checkpointing" in out  # it fits
    assert "not planned, since they learn patches: 1 of 3 stages" in out


def test_as_json(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["plan", recipe, "--tokens", "30", "--set", "stages.1.engine.kind=ddp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["stages"]
    assert first["micro_batch"] == {"rows": 4, "text_tokens": 30, "pictures": 1, "has_queries": False}
    assert second["engine"]["kind"] == "ddp"
    assert second["samples_per_second_limit"] is None
    assert second["total"] == sum(second["memory"].values()) > 0


def test_what_does_not_fit_is_said(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", recipe, "--memory", "0.001"]) == 0
    assert "! does not fit: plan for 90% of 0.001 GB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "no recipe at nowhere.yaml"),
        (["{recipe}", "--devices", "0"], "--devices is 0; expected more than 0"),
        (["{recipe}", "--memory", "-1"], "--memory is -1; expected more than 0"),
        (["{recipe}", "--devices", "3"], "batch_size 16 is not a multiple of micro_batch_size 4 times 3 devices"),
        (["--devices", "2"], "--devices is 2, which is for a recipe's training; expected RECIPE.yaml with it"),
    ],
)
def test_mistakes_are_one_line(
    recipe: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["plan", *(part.replace("{recipe}", recipe) for part in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
