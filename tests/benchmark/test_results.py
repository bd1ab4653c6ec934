"""Results survive being written down, and what is no result is told apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from some_results import make_results

from flashsloth.benchmark.results import FORMAT, RESULTS_FILE, Results, Run, load_results, save_results
from flashsloth.errors import BenchmarkError


def test_a_runs_times() -> None:
    run = Run({}, [2.0, 2.5, 4.0], 0.0, 50e9)
    assert (run.first_token, run.response, run.token) == (2.0, 4.0, 1.0)
    assert run.gaps == [0.5, 1.5]


def test_results_survive_json(tmp_path: Path) -> None:
    results = make_results()
    save_results(results, tmp_path / RESULTS_FILE)
    assert load_results(tmp_path / RESULTS_FILE) == results
    assert load_results(tmp_path) == results


def damage(**changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(make_results()), **changes}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (damage(format=FORMAT + 1), f"have format {FORMAT + 1}; expected {FORMAT}: measure again"),
        ({}, "have format None"),
        (damage(speed=3), "results in the results is damaged"),
        (damage(subjects=[{"name": "a"}]), "modelresult in the results is damaged"),
    ],
)
def test_what_is_no_result_is_refused(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        Results.from_dict(stored)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "holds a list; expected"), (None, "there is no file")]
)
def test_a_file_that_holds_none_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        load_results(path)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    save_results(make_results(), tmp_path / RESULTS_FILE)
    stored = json.loads((tmp_path / RESULTS_FILE).read_text())
    assert stored["subjects"][0]["runs"][0]["tokens"][0] == 2.0
