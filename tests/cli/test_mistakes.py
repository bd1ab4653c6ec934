"""Every command with hostile input: one line on stderr, 1 or 2, no traceback, and never "ours"."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from talkative import save_talkative

from flashsloth.cli.app import main

HUGE = "9" * 40
MACHINE = ["--bandwidth", "10", "--rate", "1"]
OPTIONS: list[tuple[list[str], str]] = [
    (["--temperature", "nan"], "temperature is nan"),
    (["--temperature", "inf"], "temperature is inf"),
    (["--temperature", "-1"], "temperature is -1.0"),
    (["--top-p", "nan"], "top_p is nan"),
    (["--top-p", "0"], "top_p is 0.0"),
    (["--max-new-tokens", "-1"], "max_tokens is -1"),
    (["--device", "meta"], "device is 'meta'"),
    (["--device", "xla"], "device is 'xla'"),
    (["--device", "cuda:-1"], "device is 'cuda:-1'"),
    (["--device", "cpu:7"], "'cpu:7' is not available"),
    (["--device", ""], "device is ''"),
    (["--dtype", "FLOAT32"], "dtype is 'FLOAT32'"),
    (["--quantize", "int2"], "quantize is 'int2'"),
]
COMMANDS: list[tuple[list[str], str]] = [
    (["ask", "What?", "-m", ""], "name is empty"),
    (["ask", "What?", "-m", "x" * 5000], "there is no folder"),
    (["ask", "What?", "-m", "\0"], "there is no folder"),
    (["ask", "What?", "-m", "nobody/nothing"], "the hub cannot be reached"),
    (["ask", "x\0y", "What?"], "no path can be like that"),
    (["ask", "file:///nowhere.png", "What?"], "'/nowhere.png': no such file"),
    (["info", "FILE"], "is a file"),
    (["info", ""], "name is empty"),
    (["new", "out", "--vision", "nobody/a", "--llm", "nobody/b"], "there is no folder 'nobody/a', and the hub"),
    (["new", "out", "--vision", "", "--llm", ""], "name is empty"),
    (["new", "out", "--vision", "a", "--llm", "b", "--seed", HUGE], "--seed is 9999"),
    (["convert", "nobody/nothing", "out"], "the hub cannot be reached"),
    (["convert", "CHECKPOINT", "out", "--set", "pool_size=: :"], "is not YAML"),
    (["merge", "CHECKPOINT", "out"], "expected an adapter"),
    (["train", "FILE"], "FILE"),
    (["ablation", "FILE"], "FILE"),
    (["eval", "pictures", "FILE"], "FILE"),
    (["eval", "world", "-m", "CHECKPOINT", "--unknown", "nan"], "unknown is nan"),
    (["world", "out", "--count", "-1"], "count is -1"),
    (["world", "out", "--start", "-5"], "start is -5"),
    (["world", "out", "--unknown", "nan"], "unknown is nan"),
    (["world", "FILE", "--count", "1"], "not a folder"),
    (["world", "FILE/inside", "--count", "1"], "FILE/inside"),
    (["world", "out", "--format", "pack", "--workers", "-2"], "workers is -2"),
    (["bench", "--quick", "--repeats", "0"], "repeats is 0"),
    (["bench", "--quick", "--threads", HUGE], "--threads is 9999"),
    (["bench", "--quick", "--seed", "-1"], "--seed is -1"),
    (["bench", "--training", "--layers", "0"], "--layers is 0"),
    (["bench", "--from", "FILE"], "FILE"),
    (["plan", "nobody/nothing"], "the hub cannot be reached"),
    (["plan", "flashsloth", "--tokens", HUGE, *MACHINE], "context is 2,048"),
    (["plan", "flashsloth", "--device", "meta", *MACHINE], "--device is 'meta'"),
    (["plan", "flashsloth", "--set", "num_query_tokens=x", *MACHINE], "num_query_tokens is 'x'"),
    (["plan", "nano", "--bandwidth", "1e308", "--rate", "1e308"], "--bandwidth is 1e+308"),
    (["plan", "nano", "--bandwidth", "nan", "--rate", "1"], "--bandwidth is nan"),
    (["warmup", "-m", "CHECKPOINT", "--batch", "0"], "batch is 0"),
    (["data", "check", "FILE"], "expected one of"),
    (["data", "check", "x.json", "--workers", "-1"], "--workers is -1"),
    (["data", "show", "FILE", "--number", "-1"], "expected"),
    (["data", "table", "FILE", "--out", "out"], "FILE"),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for what in a command line: a checkpoint, a file of no use, a folder to write to."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "FILE").write_bytes(b"\xff\xfe\x00garbage")
    tiny.picture().save(folder / "picture.png")
    return {
        "CHECKPOINT": str(save_talkative(folder / "checkpoint")),
        "FILE": str(folder / "FILE"),
        "out": str(folder / "out"),
        "picture": str(folder / "picture.png"),
    }


def one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "ours" not in err
    assert "Traceback" not in err
    assert message in err


@pytest.mark.parametrize(("arguments", "message"), COMMANDS, ids=lambda value: " ".join(value)[:60].replace("\0", "0"))
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    places: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    named = [
        places.get(word, word.replace("FILE/", places["FILE"] + "/") if word.startswith("FILE/") else word)
        for word in arguments
    ]
    one_line(named, message, capsys)
    assert not Path(places["out"]).exists()


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda value: "".join(value)[:40])
@pytest.mark.parametrize("command", ["ask", "chat"])
def test_an_option_of_no_sense_is_one_line(
    command: str, options: list[str], message: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["What?"] if command == "ask" else []
    one_line([command, *question, "-m", places["CHECKPOINT"], *options], message, capsys)


@pytest.mark.parametrize("temperature", ["1e-300", "5e-324", "1e300"])
def test_any_finite_temperature_draws(
    temperature: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--max-new-tokens", "3", "--device", "cpu"]
    assert main(["ask", "What?", "-m", places["CHECKPOINT"], "--temperature", temperature, *few]) == 0
    drawn = capsys.readouterr().out
    assert main(["ask", "What?", "-m", places["CHECKPOINT"], *few]) == 0
    likeliest = capsys.readouterr().out
    assert temperature == "1e300" or drawn == likeliest


def test_the_small_model_has_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for model in ([], ["nano"]):
        assert main(["plan", *model, *MACHINE]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""
