"""`flashsloth eval TASK`, as it is typed: runs, parts, mistakes, and what is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_pope import draw_pope

from flashsloth.cli import evaluate_tasks
from flashsloth.cli.app import main
from flashsloth.evaluation.settings import TASKS

COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_pope(folder / "pope")
    return folder


def evaluate(data: Path, out: Path, *more: str, task: str = "pope") -> int:
    return main(["eval", task, "--data", str(data), "--out", str(out), "--device", "cpu", *more])


def test_a_run_is_kept_and_shown(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert evaluate(data / "pope", out) == 0
    shown = capsys.readouterr()
    assert "95 % interval" in shown.out
    assert "86.3" in shown.out
    assert "nano, beside the paper's FlashSloth" in shown.out
    assert "12 of 9,000 questions" in shown.out
    assert "float32 (published: float16)" in shown.out
    assert shown.err.startswith("POPE: 10 of 12 questions are done, about ")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["summary"]["items"] == COUNT
    assert summary["is_whole"]
    assert summary["seconds"] > 0
    assert summary["tokens"] >= 1
    before = (out / "predictions.jsonl").read_bytes()
    assert evaluate(data / "pope", out, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again == summary
    assert main(["eval", "score", str(out), "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["summary"] == summary["summary"]
    assert (out / "predictions.jsonl").read_bytes() == before


def test_parts_on_machines_that_know_nothing_of_each_other(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number in (1, 2):
        out = tmp_path / f"machine{number}"
        assert evaluate(data / "pope", out, "--part", f"{number}/2") == 0
        assert f"part {number}/2 is answered, 6 of 12 questions" in capsys.readouterr().out
        assert evaluate(data / "pope", out, "--part", f"{number}/2", "--json") == 0
        assert json.loads(capsys.readouterr().out)["part"] == f"{number}/2"
        files.append(str(out / f"predictions.part-{number}-of-2.jsonl"))
    merged = tmp_path / "merged.jsonl"
    assert main(["eval", "score", *reversed(files), "--out", str(merged), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert evaluate(data / "pope", tmp_path / "whole", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert ours["summary"] == whole["summary"]
    assert merged.read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    for given, said in (
        (files[:1], "lacks 6 of 12 answers"),
        ([*files, files[0]], "twice: expected it once"),
        ([files[0], str(merged)], "twice: expected it once"),
    ):
        assert main(["eval", "score", *given]) == 2
        assert said in capsys.readouterr().err


def test_a_launcher_says_which_part(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in (0, 1):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))
        assert evaluate(data / "pope", tmp_path / "out") == 0
        assert ("part 1/2 is answered" in capsys.readouterr().out) == (rank == 0)
    assert (tmp_path / "out" / "predictions.jsonl").is_file()
    assert evaluate(data / "pope", tmp_path / "out", "--part", "1/2") == 2
    assert "leave one of them out" in capsys.readouterr().err


def test_what_cannot_be_answered_is_named_and_the_rest_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = draw_pope(tmp_path / "broken")
    (broken / "val2014" / "COCO_val2014_000000000002.jpg").write_bytes(b"no picture")
    assert evaluate(broken, tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert "error: POPE: 3 of 12 questions could not be answered; the same command asks them again" in shown.err
    assert "'random/COCO_val2014_000000000002/Is there a circle in the image?'" in shown.err
    assert "3 of 12 questions have no answer, nor count" in shown.err
    assert "9 of 9,000 questions" in shown.out
    assert not (tmp_path / "out" / "summary.json").exists()
    assert evaluate(broken, tmp_path / "out", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["asked"], report["summary"]["items"], report["is_whole"]) == (12, 9, False)


def test_all_takes_what_is_there(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert evaluate(data, out, "--limit", "5", "--json", task="all") == 0
    assert [one["summary"]["items"] for one in json.loads(capsys.readouterr().out)] == [5]
    assert (out / "pope" / "predictions.jsonl").is_file()
    assert evaluate(data / "pope", tmp_path / "itself", "--limit", "5", task="all") == 0
    assert (tmp_path / "itself" / "pope" / "predictions.jsonl").is_file()
    (tmp_path / "empty").mkdir()
    assert evaluate(tmp_path / "empty", out, task="all") == 2
    assert "holds no benchmark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--preset", "mine"], "preset is 'mine'; expected one of paper"),
        (["--part", "9/8"], "--part is '9/8'; expected K/N"),
        (["--limit", "0"], "--limit is 0; expected at least 1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--kind", "other"], "--kind is 'other'; expected one of flashsloth"),
        (["--kind", "server"], "a server needs --model URL and --name NAME"),
        (["--kind", "transformers"], "--kind transformers needs --model"),
        (["--model", "http://127.0.0.1:1/v1"], "a server needs --model URL and --name NAME"),
        (["--model", "http://127.0.0.1:1/v1", "--name", "x", "--quantize", "int8"], "--quantize is not for a server"),
        (["--model", "http://127.0.0.1:1/v1", "--name", "x", "--at-once", "0"], "--at-once is 0"),
        (["--at-once", "2"], "--at-once is not for a flashsloth model"),
        (["--model", "nobody/nothing"], "the hub cannot be reached"),
        (["--judge-url", "http://127.0.0.1:1/v1"], "--judge-url needs --judge-model"),
        (["--resolution", "hd"], "resolution"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["eval", "pope", "--data", str(data / "pope"), "--out", str(tmp_path / "out"), *more]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_no_use_is_one_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, out, said in (
        (data / "none", file, "there is no such folder"),
        (empty, tmp_path / "out", "has no data of POPE: expected coco_pope_random.json"),
        (data / "pope", file, "File exists"),
        (data / "pope", file / "inside", "Not a directory"),
        (data / "pope", Path("/proc/none"), "/proc/none"),
    ):
        assert evaluate(folder, out) in (1, 2)
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1


def test_a_full_disk_is_one_line(tmp_path: Path, data: Path) -> None:
    """Files of at most a few kilobytes stand for it: the write fails in the midst of a run, as it does there."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500)); "
        "from flashsloth.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["eval", "pope", "--data", str(data / "pope"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    ended = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "free some space and try again" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert evaluate(data / "pope", tmp_path / "out") == 0


def test_every_row_of_the_table_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    names = [run.__name__ for run, _ in evaluate_tasks.BENCHMARKS]
    assert names == [*TASKS, "all"]
    for name in names:
        assert main(["eval", name, "--help"]) == 0
        assert "--judge-url" in capsys.readouterr().out
