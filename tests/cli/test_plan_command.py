"""`flashsloth plan`: a table or JSON on stdout, one line for each mistake, before anything is measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flashsloth.cli.app import main
from flashsloth.inference.load import LARGE_BYTES
from flashsloth.planning import machine

ELSEWHERE = ["--bandwidth", "50", "--rate", "0.99"]
GPU = ["--device", "cuda", "--bandwidth", "4300", "--rate", "790", "--memory", "141"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line must be broken."""
    monkeypatch.setenv("COLUMNS", "160")


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_a_published_size_on_a_machine_described(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "flashsloth", "--dtype", "bfloat16", *ELSEWHERE)
    assert found["model"] == "flashsloth"
    assert (found["positions"], found["visual_tokens"], found["fits"]) == (154, 81, None)
    assert found["first_token_limit"] == pytest.approx(1.44, rel=0.02)
    assert found["first_token_seconds"] > found["first_token_limit"]
    assert found["tokens_per_second"] < found["tokens_per_second_limit"] == pytest.approx(9.3, rel=0.02)


def test_every_option_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--pictures", "2", "--tokens", "100", "--new-tokens", "20", "--batch", "3", "--quantize", "int4"]
    found = planned(capsys, "flashsloth-hd", *options, "--dtype", "float32", *ELSEWHERE, "--memory", "64")
    assert (found["pictures"], found["text_tokens"], found["new_tokens"], found["batch"]) == (2, 100, 20, 3)
    assert (found["dtype"], found["quantize"]) == ("float32", "int4")
    assert found["positions"] == 2 * 405 + 100 + 9
    assert found["machine"]["memory_bytes"] == 64e9
    assert found["fits"] is True
    assert planned(capsys, "flashsloth", "--set", "pool_size=9", *ELSEWHERE)["visual_tokens"] == 9


def test_the_small_model_on_this_machine_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really measured, with sizes that take no time and mean nothing."""
    monkeypatch.setattr(machine, "MATRIX_SHAPES", {"cpu": ((8, 32, 64),)})
    monkeypatch.setattr(machine, "READ_BYTES", {"cpu": 1 << 14})
    monkeypatch.setattr(machine, "READ_WIDTH", 64)
    monkeypatch.setattr(machine, "WAY_SECONDS", 0.001)
    found = planned(capsys, "--device", "cpu")
    assert (found["model"], found["dtype"]) == ("nano", "float32")
    assert list(found["machine"]["matrix_rate"]) == ["float32"]
    assert found["machine"]["read_bandwidth"] > 0
    assert found["fits"] is True


def test_auto_is_the_precision_that_load_would_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys, "flashsloth", *GPU)["dtype"] == "bfloat16"
    assert planned(capsys, *ELSEWHERE)["dtype"] == "float32"  # small
    large = planned(capsys, "flashsloth", *ELSEWHERE)
    assert sum(large["parameters"].values()) * 2 > LARGE_BYTES
    assert large["dtype"] in ("bfloat16", "float32")  # as this processor is


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flashsloth", "--dtype", "bfloat16", *ELSEWHERE, "--memory", "24"]) == 0
    out = capsys.readouterr().out
    for part in ("weights", "keys and values", "pictures", "activations", "process", "in all"):
        assert part in out
    for part in ("picture preparation", "encoder", "SAP + projector", "prefill", "first token", "tokens a second"):
        assert part in out
    assert "154 tokens of prompt, 81 of them for 1 picture; 64 of answer" in out
    assert "6.39 GB" in out
    assert "!" not in out


def test_what_does_not_fit_is_said_with_a_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flashsloth", "--dtype", "float32", *ELSEWHERE, "--memory", "8"]) == 0
    assert "! does not fit: 5.4" in (out := capsys.readouterr().out)
    assert "--dtype bfloat16 or --quantize int4" in out


def test_limits_alone_where_nobody_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flashsloth", "--dtype", "bfloat16", *GPU]) == 0
    out = capsys.readouterr().out
    assert "has not been measured" in out
    assert "2.0" in out
    found = planned(capsys, "flashsloth", "--dtype", "bfloat16", *GPU)
    assert found["first_token_seconds"] is None
    assert found["first_token_limit"] == pytest.approx(2.05e-3, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/where"], "there is no folder '/no/where'"),
        (["flashsloth", "--quantize", "int3", *ELSEWHERE], "quantize is 'int3'; expected one of int8, int4"),
        (["flashsloth", "--quantize", "int4", *GPU], "works on cpu so far, not on cuda"),
        (["flashsloth", "--dtype", "float12", *ELSEWHERE], "dtype is 'float12'"),
        (["flashsloth", "--device", "abacus", *ELSEWHERE], "--device is 'abacus'; expected cpu, cuda or mps"),
        (["flashsloth", "--device", "cuda:77"], "device 'cuda:77' is not available"),
        (["flashsloth", "--pictures", "-1", *ELSEWHERE], "pictures is -1; expected a whole number, at least 0"),
        (["flashsloth", "--pictures", "40", *ELSEWHERE], "this model's context is 2,048"),
        (["flashsloth", "--bandwidth", "50"], "found --bandwidth alone; expected --bandwidth and --rate together"),
        (["flashsloth", "--memory", "50"], "found --memory alone; expected --bandwidth and --rate together"),
        (["flashsloth", "--bandwidth", "0", "--rate", "1"], "--bandwidth is 0; expected more than 0"),
        (["flashsloth", "--set", "nonsense=1", *ELSEWHERE], "expected a field of the configuration"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(machine, "measure_machine", None)
    capsys.readouterr()
    assert main(["plan", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
