"""A judge that fails leaves answers unjudged, never wrong; asking again asks only about those."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import drawn_charts_and_exams
import pytest
import stub_server
from stub_server import Response, serving

from flashsloth.cli.app import main
from flashsloth.evaluation.chat_client import ChatClient, Patience
from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.judge import AT_ONCE, KEY_VARIABLE, MOST_FAILURES, judge_file, unjudged
from flashsloth.evaluation.predictions import read_predictions, write_predictions
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task

SECRET = "sk-secret-0123456789"
HASTY = Patience(seconds=60, tries=2, first_wait=0.01, longest_wait=0.5)
IMPATIENT = replace(HASTY, seconds=4, tries=1)
HEADER = {"task": "mmvet", "preset": "paper"}


def answers(count: int) -> list[Prediction]:
    truth = {"question": "What is it?", "answer": "a dog", "abilities": ["rec"]}
    return [Prediction(f"v1_{place}", "", truth, f"v1_{place}", "1", f"answer {place}") for place in range(count)]


def save(folder: Path, predictions: Sequence[Prediction]) -> Path:
    path = folder / "predictions.jsonl"
    write_predictions(path, HEADER, predictions)
    return path


def by_number(text: str, number: int) -> Response:
    """Answer 7 is graded 0.7."""
    return Response(f"0.{int(text.rsplit('answer ', 1)[1].split()[0]) % 10}")


def judged(  # type: ignore[no-untyped-def]
    path: Path, answer: Callable[[str, int], Response], times: int = 1, patience: Patience = HASTY
):
    """(report, what the server saw)."""
    with serving(answer) as stub:
        return judge_file(path, make_task("mmvet"), ChatClient(stub.url, "judge", KEY_VARIABLE, patience), times), stub


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)


def test_every_answer_is_judged_several_at_once(tmp_path: Path) -> None:
    path = save(tmp_path, answers(40))
    report, stub = judged(path, lambda text, number: replace(by_number(text, number), wait=0.002))
    assert (report.asked, report.judged, report.failures, report.models) == (40, 40, {}, {"stub-1"})
    assert 1 < stub.most_at_once <= AT_ONCE
    header, predictions = read_predictions(path)
    assert [one.judgements for one in predictions] == [(f"0.{place % 10}",) for place in range(40)]
    assert [replace(one, judgements=()) for one in predictions] == answers(40)
    assert header["judge"] == {"model": "judge", "models": ["stub-1"], "addresses": [stub.url]}
    assert SECRET not in path.read_text(encoding="utf-8")
    for one in stub.requests:
        assert (one["max_tokens"], one["temperature"]) == (3, 0)
        assert one["messages"][0]["content"].endswith(" | ")
    again, other = judged(path, by_number)
    assert (again.asked, other.requests) == (0, [])


def test_answers_may_be_judged_several_times(tmp_path: Path) -> None:
    path = save(tmp_path, [*answers(2), replace(answers(3)[2], judgements=("0.5",))])
    report, _ = judged(path, by_number, times=3)
    assert report.judged == 3 + 3 + 2
    found = [one.judgements for one in read_predictions(path)[1]]
    assert found == [("0.0",) * 3, ("0.1",) * 3, ("0.5", "0.2", "0.2")]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Response("I would say 0.5"), "the judge's reply is no judgement: 'I would say 0.5'"),
        (Response("1.5"), "the judge's reply is no judgement: '1.5'"),
        (Response(""), "the judge's reply is no judgement: ''"),
        (Response(None), "answers without a text"),
        (Response(status=400, body=b"too long"), "answers 400: too long"),
        (Response(status=429, headers={"Retry-After": "3600"}), "asks to wait 3,600 s"),
        (Response(body=b"{", announced=9), "broke off after 1 of 9 bytes"),
        (Response("0.5", wait=6.0), "said nothing for 4 s"),
    ],
)  # fmt: skip
def test_what_fails_stays_unjudged_and_is_asked_again(failure: Response, said: str, tmp_path: Path) -> None:
    path = save(tmp_path, answers(6))
    patience = IMPATIENT if failure.wait else HASTY
    report, _ = judged(
        path, lambda text, number: failure if "answer 3" in text else by_number(text, number), patience=patience
    )
    assert (report.asked, report.judged) == (6, 5)
    [(reason, count)] = report.failures.items()
    assert said in reason
    assert count == 1
    task, predictions = make_task("mmvet"), read_predictions(path)[1]
    assert [place for place, _ in unjudged(task, predictions)] == [3]
    report, stub = judged(path, by_number)
    assert (report.judged, len(stub.requests)) == (1, 1)
    assert [one.judgements for one in read_predictions(path)[1]] == [(f"0.{place}",) for place in range(6)]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Response(status=401, body=SECRET.encode()), "answers 401: ***; the key is read from FLASHSLOTH_JUDGE_KEY"),
        (Response(status=404), "answers 404"),
        (Response(status=307, headers={"Location": "http://127.0.0.1:1/v1"}), "which is not followed"),
        (Response(body=b"<html>"), "something else than a chat completion"),
    ],
)
def test_what_every_question_would_get_ends_it(failure: Response, said: str, tmp_path: Path) -> None:
    path = save(tmp_path, answers(50))
    before = path.read_bytes()
    report, stub = judged(path, lambda text, number: failure)
    assert (report.asked, report.judged) == (1, 0)
    assert said in next(iter(report.failures))
    assert len(stub.requests) <= 2 * AT_ONCE
    assert path.read_bytes() == before


def test_many_failures_in_a_row_end_it(tmp_path: Path) -> None:
    path = save(tmp_path, answers(100))
    report, stub = judged(path, lambda text, number: Response("well") if number > 30 else by_number(text, number))
    assert report.judged == 30
    assert MOST_FAILURES <= sum(report.failures.values()) < MOST_FAILURES + AT_ONCE  # in a row
    assert len(stub.requests) <= 30 + MOST_FAILURES + 2 * AT_ONCE
    assert Counter(len(one.judgements) for one in read_predictions(path)[1]) == {1: 30, 0: 70}


def test_failures_between_judgements_do_not_end_it(tmp_path: Path) -> None:
    """Each failure is followed by enough that goes well."""
    path = save(tmp_path, answers(4 * MOST_FAILURES * AT_ONCE))
    report, _ = judged(
        path, lambda text, number: Response("well") if number % (2 * AT_ONCE) == 0 else by_number(text, number)
    )
    assert report.asked == 4 * MOST_FAILURES * AT_ONCE
    assert sum(report.failures.values()) == 2 * MOST_FAILURES


def test_what_was_judged_is_kept_when_it_is_interrupted(tmp_path: Path) -> None:
    path = save(tmp_path, answers(10))
    seen = 0

    def interrupt() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt

    with serving(by_number) as stub, pytest.raises(KeyboardInterrupt):
        judge_file(path, make_task("mmvet"), ChatClient(stub.url, "judge", KEY_VARIABLE, HASTY), progress=interrupt)
    assert Counter(len(one.judgements) for one in read_predictions(path)[1]) == {1: 4, 0: 6}


def test_another_judge_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, answers(2))
    judged(path, by_number)
    with pytest.raises(EvaluationError, match="was judged by judge, not other: judge with that one"):
        judge_file(path, make_task("mmvet"), ChatClient("http://127.0.0.1:1/v1", "other", KEY_VARIABLE, HASTY))


def test_judgements_must_be_texts(tmp_path: Path) -> None:
    path = save(tmp_path, answers(1))
    path.write_text(
        path.read_text(encoding="utf-8").replace('"judgements": []', '"judgements": [0.5]'), encoding="utf-8"
    )
    with pytest.raises(EvaluationError, match=r"line 2: judgements is \[0.5\], expected a list of texts"):
        read_predictions(path)


def command(path: Path, *options: str) -> int:
    return main(["eval", "score", str(path), *options])


def test_the_command_judges_and_says_what_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, answers(4))
    assert command(path, "--json") == 1
    summary = json.loads(capsys.readouterr().out)["summary"]
    total = summary["figures"][0]
    assert (total["name"], total["value"], total["low"], total["high"]) == ("total", 0, 0, 100)
    assert (summary["judged"], summary["unjudged"]) == (0, 4)
    with serving(lambda text, number: by_number(text, number) if number != 2 else Response("prose")) as stub:
        judge = ("--judge-url", stub.url, "--judge-model", "judge")
        assert command(path, *judge) == 1
        said = capsys.readouterr()
        assert "the judge failed 1 times" in " ".join(said.err.split())
        assert "75.0 % judged by a model" in " ".join(said.out.split())
        assert command(path, *judge, "--json") == 0
        summary = json.loads(capsys.readouterr().out)["summary"]
        assert (summary["judged"], summary["unjudged"]) == (4, 0)
        assert summary["figures"][0]["value"] == pytest.approx(100 * 0.6 / 4)
        assert len(stub.requests) == 5
    assert command(path, "--judge-url", stub.url) == 2
    assert "--judge-url needs --judge-model" in " ".join(capsys.readouterr().err.split())


def test_one_command_asks_and_has_it_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn_charts_and_exams.LAYOUTS["mmvet"]["own"](tmp_path / "data")
    run = ["eval", "mmvet", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--json"]
    assert main(run) == 1
    assert json.loads(capsys.readouterr().out)["summary"]["unjudged"] == 3
    before = [one.answer for one in read_predictions(tmp_path / "run" / "predictions.jsonl")[1]]
    with serving(lambda text, number: Response("0.5")) as stub:
        assert main([*run, "--judge-url", stub.url, "--judge-model", "judge"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["summary"]["judged"], report["summary"]["figures"][0]["value"]) == (3, 50)
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["summary"] == report["summary"]
    assert main(run) == 0  # what was judged stays
    predictions = read_predictions(tmp_path / "run" / "predictions.jsonl")[1]
    assert [one.answer for one in predictions] == before
    assert sorted(before) == sorted(one["messages"][0]["content"].rsplit(" | ", 2)[1] for one in stub.requests)


def test_a_judge_that_cannot_be_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, answers(2))
    before = path.read_bytes()
    assert command(path, "--judge-url", "nowhere", "--judge-model", "judge") == 2
    assert "'nowhere' is no address of a server" in " ".join(capsys.readouterr().err.split())
    task, client = make_task("mmvet"), ChatClient(stub_server.closed_address(), "judge", KEY_VARIABLE, HASTY)
    report = judge_file(path, task, client)
    assert (report.judged, path.read_bytes()) == (0, before)
    assert "cannot be reached" in next(iter(report.failures))
