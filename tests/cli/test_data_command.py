"""`flashsloth data check` and `show`: what is found, how it is said, and the exit code."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flashsloth.cli import terminal
from flashsloth.cli.app import main
from flashsloth.training.inspect_data import Examiner
from flashsloth.world import World, export_split


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line must be broken."""
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clean")
    export_split(World(seed=1, split="train", level=1), made, 14)
    return made


@pytest.fixture
def spoiled(clean: Path) -> Path:
    """One sample of each kind of finding."""
    records = json.loads((clean / "conversations.json").read_text(encoding="utf-8"))
    (clean / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    records[0]["image"] = "absent.png"
    records[1]["image"] = "broken.png"
    del records[2]["conversations"][-1]
    records[3]["conversations"][0]["value"] = "<image>\n<image>\nTwo?"
    records[4]["conversations"][1]["value"] = "word " * 4000
    records[5]["conversations"][1]["value"] = ""
    records[6]["conversations"] = [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": " "}]
    records[7]["conversations"].insert(0, {"from": "gpt", "value": "...so it goes."})
    records[9] = dict(records[8])
    records[10]["conversations"][1]["value"] += " <image>"
    del records[13]["image"]
    records[11]["conversations"] = []
    records[12] = ["no", "object"]
    file = clean / "spoiled.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


EXPECTED = {
    "missing_picture": [0],
    "unreadable_picture": [1],
    "broken_turns": [2],
    "placeholder_mismatch": [3, 13],
    "too_long": [4],
    "empty_answer": [5],
    "nothing_supervised": [6],
    "cut_conversation": [7],
    "duplicate_id": [9],
    "duplicate_content": [9],
    "stray_placeholder": [10],
    "no_conversation": [11],
    "unreadable_record": [12],
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["data", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_kind_of_mistake_is_found(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    report = tmp_path / "report.json"
    code, out = run(capsys, "check", str(spoiled), "--workers", workers, "--report", str(report))
    assert code == 1
    found = json.loads(report.read_text(encoding="utf-8"))
    by_kind: dict[str, list[int]] = {}
    for finding in found["findings"]:
        by_kind.setdefault(finding["kind"], []).append(finding["index"])
        assert "\n" not in finding["reason"]
    assert by_kind == EXPECTED
    assert found["counts"] == {kind: len(numbers) for kind, numbers in EXPECTED.items()}
    assert (found["samples"], found["bad"], found["tokenized"]) == (14, 9, 1)
    assert "14 samples" in out
    assert "training would stop: 9 of 14 samples (64.29%) are bad, more than max_bad_fraction, 0.5%" in out
    for words in ("missing pictures", "nothing supervised", "the same id as an earlier sample", "absent.png"):
        assert words in out
    assert str(report) in out


def test_a_clean_file_ends_with_0(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "check", str(clean / "conversations.json"), "--workers", "0")
    assert code == 0
    assert "14 samples, 14 with pictures (14), " in out
    assert "clean: training would take every sample" in out


def test_pictures_may_stay_closed(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "check", str(spoiled), "--workers", "0", "--no-pictures", "--json")
    assert code == 1
    found = json.loads(out)
    assert "unreadable_picture" not in found["counts"]
    assert found["counts"]["missing_picture"] == 1
    assert not found["pictures_opened"]


def test_the_limit_can_be_changed(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(clean / "conversations.json")
    code, out = run(capsys, "check", file, "--workers", "0", "--max-length", "90", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["tokenized"] == 14
    assert 0 < found["counts"]["too_long"] <= 14


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "data.txt"], "ends with '.txt', expected one of .json, .jsonl"),
        (["check", "/no/where.json"], "no data at /no/where.json"),
        (["check", "/no/where.tar", "--images", "x"], "shards, which bring their pictures"),
        (["check", "/no/where.json", "--stage", "encoder"], "--stage is 'encoder'; expected one of alignment"),
        (["check", "/no/where.json", "--workers", "-1"], "--workers is -1; expected 0 or more"),
        (["check", "/no/where.json", "--report", "/no/folder/x.json"], "--report: there is no folder /no/folder"),
        (["check", "/no/where.json", "--max-length", "0"], "--max-length is 0; expected at least 1"),
        (["show", "/no/where.json"], "found neither --id nor --number"),
        (["show", "/no/where.json", "--id", "a", "--number", "1"], "found both --id and --number"),
        (["check", "/no/where.json", "--model", "/no/model"], "there is no folder '/no/model'"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    capsys.readouterr()
    assert main(["data", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out = run(capsys, "show", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_a_sample_is_shown_with_what_each_token_is(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clean / "conversations.json"
    record = json.loads(file.read_text(encoding="utf-8"))[3]
    found = shown(capsys, str(file), "--id", record["id"])
    assert found["index"] == 3
    runs = found["runs"]
    assert [run["start"] for run in runs[1:]] == [run["stop"] for run in runs[:-1]]
    assert runs[1]["is"] == "picture 1"
    turns = record["conversations"]
    questions = [turn["value"].removeprefix("<image>\n") for turn in turns[::2]]
    asked = [run["text"].strip() for run in runs if run["is"].startswith("question")]
    assert asked == [questions[0], *(f": {question}" for question in questions[1:])]  # the published spans
    assert [run["text"] for run in runs if run["is"] == "supervised"] == [f" {t['value']}</s>" for t in turns[1::2]]
    assert [run["stop"] - run["start"] for run in runs if run["is"].startswith("queries")] == [4] * len(questions)


def test_without_colours_a_line_tells_of_each_run(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "show", str(clean / "conversations.json"), "--number", "0")
    assert code == 0
    assert "\x1b" not in out
    assert "* the loss stands here" in out
    lines = out.splitlines()
    assert any("picture 1" in line for line in lines)
    assert any(line.startswith("*") and "</s>" in line for line in lines)


def test_on_a_terminal_colours_tell(
    clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="truecolor", width=200, highlight=False)
    monkeypatch.setattr("flashsloth.cli.print_sample.stdout", lambda: console)
    assert main(["data", "show", str(clean / "conversations.json"), "--number", "0"]) == 0
    written = screen.getvalue()
    assert "[picture 1 ×" in written
    assert "\x1b[1;4;32m" in written  # bold, underlined, green: supervised
    assert "query tokens of a turn" in written


def test_a_bad_sample_is_shown_with_its_reason(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "show", str(spoiled), "--number", "2")
    assert code == 1
    assert "bad sample: " in out
    assert "ends with a question, expected the answer to it" in out
    assert main(["data", "show", str(spoiled), "--id", "nobody"]) == 2
    assert "has no sample with the id 'nobody'" in capsys.readouterr().err
    assert main(["data", "show", str(spoiled), "--number", "99"]) == 2
    assert "has samples 0 to 13" in capsys.readouterr().err


def test_terminals_obey_nothing_that_a_file_says(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clean / "sly.jsonl"
    turns = [{"from": "human", "value": "a\x1b[2J"}, {"from": "gpt", "value": "b\x1b[31m[bold]c"}]
    file.write_text(
        json.dumps({"id": "\x1b[2Jx", "conversations": turns}) + "\n" + json.dumps({"id": "\x1b[2Jy"}), encoding="utf-8"
    )
    assert "\x1b" not in run(capsys, "show", str(file), "--number", "0")[1]
    assert "\x1b" not in run(capsys, "check", str(file), "--workers", "0")[1]
    assert terminal.harmless("\x1b") != "\x1b"


def test_check_and_show_say_what_a_sample_was_read_as(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = json.loads((clean / "conversations.json").read_text(encoding="utf-8"))[0]["image"]
    part = {"type": "image_url", "image_url": {"url": picture}}
    asked = {"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}
    held = {"messages": [{"role": "system", "content": "Be brief."}, asked, {"role": "assistant", "content": "A dog."}]}
    file = clean / "mixed.jsonl"
    lines = [held, {"image": picture, "question": "What?", "answer": "A cat."}, {"image": picture, "caption": "a dog"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    code, out = run(capsys, "check", str(file), "--workers", "0")
    assert code == 0
    assert "read as: 1 messages with content in parts, 1 question and answer, 1 picture and caption" in out
    _, out = run(capsys, "check", str(file), "--workers", "0", "--json")
    assert json.loads(out)["layouts"] == {
        "messages with content in parts": 1,
        "question and answer": 1,
        "picture and caption": 1,
    }
    assert shown(capsys, str(file), "--number", "1")["layout"] == "question and answer"
    _, out = run(capsys, "show", str(file), "--number", "0", "--template")
    assert out == "Be brief. USER: <image>\nWhat is it? <learnable> ASSISTANT:⟦ A dog.</s>⟧\n"
    _, out = run(capsys, "show", str(file), "--number", "2", "--template", "--stage", "alignment")
    assert out == "<image>⟦a dog\n⟧\n"


def test_the_template_is_the_text_that_the_processor_writes(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flashsloth.model.chat_template import QUESTION_START
    from flashsloth.model.loading import load_processor
    from flashsloth.model.loading.folders import shipped_folder
    from flashsloth.training.data import JsonData

    file = clean / "conversations.json"
    processor = load_processor(shipped_folder())
    for number in range(3):
        written = shown(capsys, str(file), "--number", str(number))["template"]
        messages = JsonData(str(file))[number].messages
        exact = processor.apply_chat_template(messages, space_before_queries=True).replace(QUESTION_START, "")
        assert written.replace("⟦", "").replace("⟧", "") == exact


@pytest.mark.parametrize("name", ["https://example.com/" + "a" * 9000, "data:image/png;base64," + "A" * 90_000])
def test_a_picture_written_down_or_on_the_web_does_not_flood_the_terminal(
    clean: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "x"}]
    file = clean / "web.jsonl"
    file.write_text(json.dumps({"image": name, "conversations": turns}) + "\n", encoding="utf-8")
    for arguments in (("check", str(file), "--workers", "0"), ("show", str(file), "--number", "0")):
        code, out = run(capsys, *arguments)
        assert code == 1
        assert len(out) < 1500


def test_no_folder_of_pictures_is_one_line(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "check", str(clean / "conversations.json"), "--images", str(clean / "absent")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "there is no folder of pictures at" in err


def test_a_worker_that_is_killed_ends_the_check_in_one_line(
    clean: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examiner, "chunk", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    monkeypatch.setattr(logging.getLogger(terminal.PACKAGE_LOGGER), "handlers", [])  # an earlier command's log
    assert main(["data", "check", str(clean / "conversations.json"), "--workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "error: 3 data workers were killed by SIGKILL one after the other, each while it prepared the batch of samples "
        "0, 1, 2, 3, 4, 5, 6, 7 and 6 more of the data: a system that is short of memory kills them (see `dmesg`); use "
        "fewer workers, a smaller micro_batch_size, or free memory\n",
    )
