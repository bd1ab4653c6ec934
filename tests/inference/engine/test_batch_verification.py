"""The proof itself: it holds for what is right, and finds what is wrong."""

from __future__ import annotations

import pytest
import torch

from flashsloth.cli.app import main
from flashsloth.inference.engine import batch_verification, model_runner
from flashsloth.inference.engine.batch_verification import verify_batch
from flashsloth.inference.pipeline import FlashSloth

REQUESTS = 20


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_verification, "LONGEST", 24)
    monkeypatch.setattr(batch_verification, "LEAST_ROWS", 2)


def test_it_holds(sloth: FlashSloth) -> None:
    report = verify_batch(sloth, REQUESTS)
    assert (report.broken, report.holds) == ([], True)
    assert report.requests == REQUESTS
    assert report.mean_rows > 2


def test_it_finds_a_row_that_sees_its_neighbours(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    right = model_runner.causal_mask

    def wrong(columns: torch.Tensor, width: int) -> torch.Tensor:
        return right(columns, width) | (columns.shape[1] == 1)

    monkeypatch.setattr(model_runner, "causal_mask", wrong)
    report = verify_batch(sloth, REQUESTS)
    assert not report.holds
    assert "among others and" in report.broken[0]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--quantize", "int8"]])
def test_a_thousand_requests(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert main(["verify-batch", "--device", "cpu", *options]) == 0


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-batch", "--device", "cpu", "--requests", "12"]) == 0
    assert "0 differed otherwise" in capsys.readouterr().out
    assert main(["verify-batch", "--device", "cpu", "--requests", "0"]) == 2
    assert main(["verify-batch", "--device", "cpu", "--requests", "1"]) == 1
    assert "proves nothing: expected 2 rows" in capsys.readouterr().out
