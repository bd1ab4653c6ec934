"""The command line: results on stdout, one line for each mistake, exit codes, help that shows how."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from forked import python
from PIL import Image
from talkative import save_talkative
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

import flashsloth
from flashsloth.cli.app import BENCHMARKS, COMMANDS, EVALUATIONS, main

FEW = ["--max-new-tokens", "6", "--device", "cpu"]
ALL_COMMANDS = [[command.name] for commands in COMMANDS.values() for command in commands]
ALL_COMMANDS += [["eval"], *(["eval", command.name] for command in EVALUATIONS)]
ALL_COMMANDS += [["bench"], *(["bench", command.name] for command in BENCHMARKS)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    tiny.picture().save(path)
    return str(path)


@pytest.fixture
def answer(checkpoint: str, picture: str) -> str:
    return flashsloth.load(checkpoint, device="cpu").answer(picture, "What is this?", max_new_tokens=6)


def test_ask_prints_the_answer_alone(
    checkpoint: str, picture: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["ask", picture, "What is this?", "-m", checkpoint, *FEW]) == 0
    out, err = capsys.readouterr()
    shown = "".join(c if c.isprintable() else "\ufffd" for c in answer)
    assert (out, err) == (shown + "\n", "")


def test_ask_json(checkpoint: str, picture: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ask", picture, "What is this?", "-m", checkpoint, *FEW, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found["answer"] == answer
    assert found["pictures"] == [picture]
    assert (found["model"], found["device"], found["dtype"]) == (checkpoint, "cpu", "float32")
    assert found["seconds"] >= 0
    assert isinstance(found["tokens"], int)


def test_ask_takes_several_pictures_and_none(checkpoint: str, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    for pictures in ([], [picture, picture]):
        assert main(["ask", *pictures, "What?", "-m", checkpoint, *FEW, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pictures"] == pictures


def test_ask_reads_a_picture_from_stdin(
    checkpoint: str, picture: str, answer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(picture).read_bytes())))
    assert main(["ask", "-", "What is this?", "-m", checkpoint, *FEW, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answer


def test_chat_reads_lines_and_minds_its_commands(
    checkpoint: str, picture: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["What is this?", "", "/image nowhere.png", f"/image {picture}", "And this?", "/frob", "/help", "/new"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, "What is this?", "/quit", "never asked"])))
    assert main(["chat", picture, "-m", checkpoint, *FEW]) == 0
    out, err = capsys.readouterr()
    first, _, again, *rest = out.split("\n")
    assert first == again  # /new forgot what was between
    assert rest == [""]
    assert "error: 'nowhere.png': no such file" in err
    assert "there is no command /frob" in err
    assert "/image PATH" in err


def test_info(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", checkpoint]) == 0
    out = capsys.readouterr().out
    assert "language model" in out
    assert "patches_per_view" in out
    assert main(["info", checkpoint, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"]["patches_per_view"] == 36


def test_convert_there_and_back(picture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    text = {**tiny.TEXT, "num_hidden_layers": 8, "vocab_size": 800}
    published_sizes = {"num_query_tokens": 9, "embq_layer": 7, "anchor_token_id": 764}
    checkpoint = str(save_talkative(tmp_path / "source", text_config=text, **published_sizes))
    capsys.readouterr()
    assert main(["convert", checkpoint, str(theirs), "--to", "published"]) == 0
    assert capsys.readouterr().out == f"{theirs}\n"
    assert json.loads((theirs / "config.json").read_text())["model_type"] == "phi"
    assert main(["convert", str(theirs), str(ours)]) == 0
    assert json.loads((ours / "config.json").read_text())["model_type"] == "flashsloth"
    answers = []
    for model in (ours, theirs):
        capsys.readouterr()
        assert main(["ask", picture, "What is this?", "-m", str(model), *FEW]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != "\n"  # either layout answers through the same door
    assert main(["convert", checkpoint, str(ours)]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_new_creates_a_model_of_two_backbones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny.make_tokenizer()
    vision = {name: value for name, value in tiny.VISION.items() if name != "model_type"}
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**vision)).save_pretrained(tmp_path / "vision")
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    backbones = ["--vision", str(tmp_path / "vision"), "--llm", str(tmp_path / "llm")]
    assert main(["new", str(tmp_path / "joined"), *backbones, "--query-tokens", "5", "--pool-size", "2"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'joined'}\n"
    model = flashsloth.load(tmp_path / "joined", device="cpu").model
    assert (model.config.num_query_tokens, model.config.pool_size) == (5, 2)


def test_world_writes_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["world", str(tmp_path / "drawn"), "--count", "3", "--level", "1", "--format", "jpg"]) == 0
    path = tmp_path / "drawn" / "conversations.json"
    assert capsys.readouterr().out == f"{path}\n"
    records = json.loads(path.read_text())
    assert len(records) == 3
    assert Image.open(path.parent / records[0]["image"]).format == "JPEG"


def test_eval_world(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "world", "-m", checkpoint, "--count", "2", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "95 % interval" in out
    assert out.splitlines()[-1].startswith("all")
    assert err == ""
    assert main(["eval", "world", "-m", checkpoint, "--count", "2", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flashsloth {flashsloth.__version__}\n"


@pytest.mark.parametrize("arguments", ALL_COMMANDS, ids=" ".join)
def test_every_command_shows_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--help"]) == 0
    out = capsys.readouterr().out
    assert " ".join(["flashsloth", *arguments]) in out
    assert arguments == ["eval"] or "Examples" in out


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(command.name in out for commands in COMMANDS.values() for command in commands)


def test_every_example_is_a_command_that_parses() -> None:
    """Examples name real options: each is parsed as far as the command's own arguments."""
    import shlex

    from typer.main import get_command

    from flashsloth.cli.app import app

    for commands in [*COMMANDS.values(), EVALUATIONS, BENCHMARKS]:
        for command in commands:
            for example in command.examples:
                words = shlex.split(example.split("|")[-1].split(">")[0])
                group, rest = get_command(app), words[1:]
                while rest and rest[0] in getattr(group, "commands", {}):
                    group, rest = group.commands[rest[0]], rest[1:]
                assert group.name == command.name
                with group.make_context(command.name, rest):
                    pass


def mistakes(checkpoint: str, picture: str) -> list[tuple[list[str], str]]:
    """Command lines that cannot work, and what each must say."""
    return [
        (["frob"], "No such command 'frob'"),
        (["ask"], "Missing argument 'QUESTION'"),
        (["ask", picture], "is a file; expected the question"),
        (["ask", picture, " "], "the question is empty"),
        (["ask", "-", "-", "What?"], "more than once"),
        (["ask", "nowhere.png", "What?"], "'nowhere.png': no such file"),
        (["ask", checkpoint, "What?"], "is a directory; expected a picture file"),
        (["ask", picture, "What?", "-m", "no/such/model"], "there is no folder 'no/such/model'"),
        (["ask", picture, "What?", "-m", str(Path(picture).parent)], "has no config.json"),
        (["ask", picture, "What?", "-m", checkpoint, "--dtype", "int8"], "dtype is 'int8'"),
        (["ask", picture, "What?", "-m", checkpoint, "--device", "cuda:99"], "'cuda:99' is not available"),
        (["ask", picture, "What?", "-m", checkpoint, "--max-new-tokens", "0"], "max_tokens is 0"),
        (["ask", picture, "What?", "--temperature", "warm"], "Invalid value for '--temperature'"),
        (["ask", picture, "What?", "--frob"], "No such option"),
        (["ask", picture, "why " * 2000, "-m", checkpoint], "context is 1,024"),
        (["chat", "nowhere.png"], "'nowhere.png': no such file"),
        (["info", "no/such/folder"], "no/such/folder"),
        (["convert", checkpoint, picture], "exists and is not an empty folder"),
        (["convert", checkpoint, "x", "--to", "onnx"], "to is 'onnx'"),
        (["new", "x", "--vision", "only"], "Missing option '--llm'"),
        (["train", "nowhere.yaml"], "no recipe at nowhere.yaml"),
        (["train", "recipes/nano.yaml", "--set", "seed"], "expected key=value"),
        (["world", "x", "--count", "0"], "count is 0"),
        (["world", "x", "--split", "middle"], "split is 'middle'"),
        (["eval", "world", "-m", checkpoint, "--count", "0"], "count is 0"),
        (["eval", "world", "-m", checkpoint, "--level", "9"], "level is 9"),
    ]


@pytest.mark.parametrize("number", range(26))
def test_a_mistake_is_one_line_and_two(
    number: int, checkpoint: str, picture: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments, message = mistakes(checkpoint, picture)[number]
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_every_mistake_is_tried(checkpoint: str, picture: str) -> None:
    assert len(mistakes(checkpoint, picture)) == 26


def test_answers_with_everything_that_can_be_asked(
    checkpoint: str, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["ask", picture, "What?", "-m", checkpoint, *FEW]
    drawn = [*asked, "--temperature", "2", "--seed", "3"]
    assert main([*drawn, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["seed"], one["finish_reason"]) == (3, "length")
    assert main([*drawn, "-n", "2", "--json", "--logprobs", "2"]) == 0
    several = json.loads(capsys.readouterr().out)
    assert [several["answer"], several["answers"][0]["answer"]] == [one["answer"]] * 2
    assert [len(token["top"]) for token in several["logprobs"]] == [2] * len(several["logprobs"])
    assert main([*asked, "--choice", "yes", "--choice", "no", "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert sum(judged["choices"].values()) == pytest.approx(1)
    assert main([*asked, "--choice", "yes", "--choice", "no"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1] == judged["answer"]
    assert {first.split()[1], second.split()[1]} == {"yes", "no"}


def test_says_at_which_resolution_it_looked(tmp_path: Path, picture: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", picture, "What?", "-m", str(save_talkative(tmp_path / "hd", image_grid=2)), *FEW]
    found = {}
    for threshold in ("0", "1"):
        assert main([*asked, "--resolution", "auto", "--resolution-threshold", threshold, "--json"]) == 0
        found[threshold] = json.loads(capsys.readouterr().out)
    assert (found["0"]["resolution"], found["1"]["resolution"]) == ("standard", "hd")
    assert 0 < found["0"]["confidence"] < 1
    assert "logprobs" not in found["0"]
    assert main([*asked, "--resolution", "half"]) == 2
    assert "expected one of standard, hd, auto" in capsys.readouterr().err


def test_our_own_fault_is_one_line_and_one(
    checkpoint: str, picture: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes\ndo not match")

    monkeypatch.setattr("flashsloth.inference.vision.ImageEncoder.encode_prepared", broken)
    monkeypatch.delenv("FLASHSLOTH_DEBUG", raising=False)
    capsys.readouterr()
    assert main(["ask", picture, "What?", "-m", checkpoint, *FEW]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: shapes do not match" in err
    assert "FLASHSLOTH_DEBUG=1" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("FLASHSLOTH_DEBUG", "1")
    assert main(["ask", picture, "What?", "-m", checkpoint, *FEW]) == 1
    assert "Traceback" in capsys.readouterr().err


def run(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
    command = [*python(), "-m", "flashsloth", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_a_reader_who_goes_is_no_error(checkpoint: str, picture: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*python(), "-m", "flashsloth", "ask", picture, "What?", "-m", checkpoint, *FEW]
    finished = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert finished.stderr == b""
    assert finished.returncode == 1


def test_ctrl_c_is_130_and_no_traceback(checkpoint: str, picture: str) -> None:
    for _ in range(4):  # the answer may be done before the signal arrives
        process = run(["ask", picture, "What?", "-m", checkpoint, "--max-new-tokens", "950"])
        assert process.stdout is not None
        process.stdout.read(1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        if process.returncode != 0:
            break
    assert process.returncode == 130
    assert b"Traceback" not in err


PUBLISHED_TINY = str(Path(__file__).parents[1] / "parity" / "tiny")
TINY_SETTINGS = ["--set", "query_token_id=500", "--set", "anchor_token_id=13"]


def test_what_a_published_checkpoint_does_not_tell_is_asked_for_and_can_be_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", PUBLISHED_TINY]) == 2
    untold = capsys.readouterr().err
    assert "query_token_id" in untold
    assert "--set" in untold

    assert main(["info", PUBLISHED_TINY, *TINY_SETTINGS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "published"

    assert main(["convert", PUBLISHED_TINY, str(tmp_path / "ours"), *TINY_SETTINGS]) == 0
    assert (tmp_path / "ours" / "config.json").is_file()

    assert main(["info", PUBLISHED_TINY, "--set", "colour=red"]) == 2
    assert "expected a field of the configuration" in capsys.readouterr().err
