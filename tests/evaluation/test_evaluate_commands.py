"""`flashsloth eval score` as it is typed, and a run whose answers a judge grades."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawn_charts_and_exams import mmvet_own
from drawn_pope import draw_pope
from stub_server import Response, serving

from flashsloth.cli.app import main
from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import data_digest, read_predictions, write_predictions
from flashsloth.evaluation.tasks import make_task

COUNT = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_pope(tmp_path / "pope")


@pytest.fixture
def answers(data: Path) -> list[Prediction]:
    """Yes to every question."""
    items = make_task("pope").read(data)
    asked = [(item.id, item.prompt, item.truth, item.group, item.picture) for item in items]
    return [Prediction(*one, "Yes", 2, place=place) for place, one in enumerate(asked)]


def header_of(answers: list[Prediction], **more: Any) -> dict[str, Any]:
    return {
        "task": "pope",
        "preset": "paper",
        "data": {"items": len(answers), "digest": data_digest(answers)},
        "limit": None,
        **more,
    }


def test_figures_are_those_of_the_answers(
    tmp_path: Path, answers: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "predictions.jsonl"
    write_predictions(file, header_of(answers), answers)
    assert main(["eval", "score", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    figures = {one["name"]: one["value"] for one in report["summary"]["figures"]}
    assert figures["accuracy"] == pytest.approx(100 / 3)
    assert figures["f1"] == pytest.approx(50)
    assert (report["paper"], report["paper_model"], report["is_whole"]) == (86.3, "FlashSloth", True)
    assert main(["eval", "score", str(file), "--preset", "llava", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["summary"]["figures"][0]["name"] != "accuracy"
    assert "preset llava" in other["differs"]


@pytest.mark.parametrize(
    ("model", "paper"), [({"views": 5}, 87.2), ({"views": 5, "resolution": "standard"}, 86.3), ({"views": 1}, 86.3)]
)
def test_the_papers_figure_is_that_of_the_models_kind(
    tmp_path: Path,
    answers: list[Prediction],
    model: dict[str, Any],
    paper: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "predictions.jsonl"
    write_predictions(file, header_of(answers, model=model), answers)
    assert main(["eval", "score", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paper"] == paper


def test_truths_are_joined_by_id_and_others_refused(
    tmp_path: Path, data: Path, answers: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "predictions.jsonl", tmp_path / "joined.jsonl"
    write_predictions(file, header_of(answers), answers)
    key = data / "coco_pope_adversarial.json"
    key.write_text(key.read_text(encoding="utf-8").replace('"no"', '"yes"'), encoding="utf-8")
    options = ["eval", "score", str(file), "--data", str(data), "--json"]
    assert main([*options, "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["figures"][0]["value"] == pytest.approx(200 / 3)
    assert main(["eval", "score", str(out)]) == 0
    capsys.readouterr()
    rows = key.read_text(encoding="utf-8").splitlines()
    for changed, said in (
        (rows[1:], "has answers to questions that the data does not have: 1 of 12"),
        ([*rows, rows[0].replace("star", "moon")], "has no answers to questions of the data: 1 of 13"),
    ):
        key.write_text("\n".join(changed), encoding="utf-8")
        assert main(options) == 2
        assert said in capsys.readouterr().err
    write_predictions(file, header_of(answers, limit=12), answers)
    assert main(options) == 0  # of a run with a limit, the data may have more


def test_a_file_that_was_changed_is_refused(
    tmp_path: Path, answers: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "predictions.jsonl"
    forged = [replace(one, truth={**one.truth, "label": "yes"}) for one in answers]
    write_predictions(file, header_of(answers), forged)
    assert main(["eval", "score", str(file)]) == 2
    assert "it was changed" in capsys.readouterr().err
    write_predictions(file, header_of(answers), answers)
    lines = file.read_text(encoding="utf-8").splitlines()
    for content, said in (
        ("\n".join(lines[1:]), "does not begin with a header"),
        ("\n".join([lines[0], "{", *lines[1:]]), "line 2, is not JSON"),
        ("\n".join([*lines[:-1], '{"id": "x"}', ""]), "lacks a field"),
        ('{"header": {"format": 1}}\n', "does not say which task"),
        ("", "does not begin with a header"),
    ):
        file.write_text(content, encoding="utf-8")
        assert main(["eval", "score", str(file)]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert shown.count("\n") == 1


def test_a_published_file_may_have_a_line_twice(
    tmp_path: Path, answers: list[Prediction], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recorded.jsonl"
    header = {"task": "pope", "preset": "paper"}
    write_predictions(file, header, [*answers, answers[3]])
    assert main(["eval", "score", str(file), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["summary"]["items"] == COUNT
    assert "answers that are there twice, and were counted once: 1" in shown.err
    write_predictions(file, header, [*answers, replace(answers[3], answer="No")])
    assert main(["eval", "score", str(file)]) == 2
    assert "twice, and differing" in capsys.readouterr().err


def grades_the_first(text: str, number: int) -> Response:
    return Response("0.6") if number == 1 else Response("I would say it is quite good")


def test_a_run_with_a_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "mmvet", tmp_path / "out"
    mmvet_own(data)
    options = ["eval", "mmvet", "--data", str(data), "--out", str(out), "--device", "cpu"]
    assert main([*options, "--json"]) == 1  # nobody has judged
    count = json.loads(capsys.readouterr().out)["summary"]["unjudged"]
    assert count > 1
    with serving(grades_the_first) as stub:
        assert main([*options, "--judge-url", stub.url, "--judge-model", "judge"]) == 1
    shown = capsys.readouterr()
    assert "at least" in shown.out
    assert f"{100 / count:.1f} % judged by a model" in shown.out
    assert "the judge failed" in shown.err
    assert f"nobody has judged {count - 1} of {count} answers" in shown.err
    file = out / "predictions.jsonl"
    assert sum(bool(one.judgements) for one in read_predictions(file)[1]) == 1
    with serving(lambda text, number: Response("1")) as stub:
        asked = ["eval", "score", str(file), "--judge-url", stub.url, "--judge-model", "judge", "--json"]
        assert main(asked) == 0
        assert len(stub.requests) == count - 1
    report = json.loads(capsys.readouterr().out)
    assert (report["summary"]["unjudged"], report["summary"]["judged"]) == (0, count)
    assert report["summary"]["figures"][0]["value"] == pytest.approx(100 * (0.6 + count - 1) / count)
    assert main(options) == 0  # what was judged stays
    assert f"{100 * (0.6 + count - 1) / count:.2f}" in capsys.readouterr().out
