"""Warming up runs every shape that answers will need, and says what it took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from twins import MakeTwins, Twins

from flashsloth.cli import main
from flashsloth.inference import PromptError
from flashsloth.inference.accelerator.recorded import CompiledPass

QUESTION = "Where is the red dog with the blue chair?"


def shapes_of(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Where the shapes of all passes are written from now on."""
    shapes: set[Any] = set()
    run = CompiledPass.__call__

    def watched(self: CompiledPass, key: Any, *arguments: Any) -> Any:
        shapes.add((self.name, key))
        return run(self, key, *arguments)

    monkeypatch.setattr(CompiledPass, "__call__", watched)
    return shapes


def test_what_answers_need_has_been_run(
    twins: Twins, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = shapes_of(twins, monkeypatch)
    took = twins.fast.warm_up(batch=4, columns=80)
    assert took.seconds > 0
    assert (took.compile_seconds, took.recorded, took.kept_in) == (0, 0, None)
    assert {key[0] for name, key in shapes if name == "step"} == {(1,), (2,), (4,)}
    assert {key[-1] for name, key in shapes if name == "step"} == {16, 32, 48, 64, 80, 96}
    steps = {key for name, key in shapes if name == "step"}
    expected = twins.plain.answer(pictures[0], QUESTION, max_new_tokens=30)
    assert twins.fast.answer(pictures[0], QUESTION, max_new_tokens=30) == expected
    assert {key for name, key in shapes if name == "step"} == steps


def test_the_cost_of_compiling_is_told(make_twins: MakeTwins) -> None:
    twins = make_twins(backend="eager")
    for one in twins.engine.passes.values():
        one.compiled = one.function  # what compiles in no time
    took = twins.fast.warm_up(columns=16)
    assert took.compile_seconds > 0
    assert took.kept_in


def test_a_plain_model_has_little_to_warm(twins: Twins) -> None:
    took = twins.plain.warm_up()
    assert (took.recorded, took.kept_in) == (0, None)
    with pytest.raises(PromptError, match="batch is 0"):
        twins.plain.warm_up(0)


def test_who_is_answering_cannot_be_warmed(twins: Twins, pictures: list[Image.Image]) -> None:
    pieces = twins.fast.stream(pictures[0], QUESTION, max_new_tokens=9)
    next(pieces)
    with pytest.raises(PromptError, match="another answer is being made"):
        twins.fast.warm_up()
    pieces.close()


def test_the_command(checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["warmup", "--model", str(checkpoints["phi"]), "--device", "cpu"]
    assert main(arguments) == 0
    assert "nothing had to be compiled here" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert main([*arguments, "--batch", "0"]) == 2
    assert "batch is 0" in capsys.readouterr().err
