"""`flashsloth bench --training`: what is compared, what is measured, and how it is shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from flashsloth.benchmark.training import (
    ALL_TOKENS,
    FLASHSLOTH,
    MODELS,
    STAGE_NAMES,
    Measured,
    TrainingJob,
    TrainingResults,
    count,
    load_training_results,
)
from flashsloth.benchmark.training_report import markdown, write_training_report
from flashsloth.benchmark.worker import Worker
from flashsloth.cli.app import main
from flashsloth.errors import BenchmarkError

STEPS = 1


def job(subject: str, stage: str, **changes: Any) -> TrainingJob:
    return TrainingJob(
        subject, stage, None, **{"layers": 2, "rows": 2, "text_tokens": 12, "dtype": "float32", **changes}
    )


@pytest.fixture(scope="module")
def results() -> TrainingResults:
    """All four, of the small model with two layers, measured in this process."""
    jobs = [job(subject, stage) for stage in STAGE_NAMES for subject in MODELS]
    asked = [dataclasses.asdict(one) for one in jobs]
    measured = [Measured(one, Worker().answer({"do": "measure", "job": one, "steps": STEPS})) for one in asked]
    machine = {"name": "here", "system": "any", "threads": 1, "torch": "2", "disturbed": "nobody looked"}
    return TrainingResults(machine, measured, [count(one, again) for one in jobs for again in (False, True)])


def test_the_rival_is_the_same_towers_with_every_patch() -> None:
    ours, theirs = (job(subject, "instruction") for subject in MODELS)
    models = [one.make() for one in (ours, theirs)]
    shapes = [{n: p.shape for n, p in model.model.language_model.named_parameters()} for model in models]
    assert shapes[0] == shapes[1]
    config = models[1].config
    assert config.num_image_tokens == config.num_patches == 9 * models[0].config.num_image_tokens
    assert not list(models[1].model.spatial_attention_pooling.parameters())
    assert not any(p.requires_grad for p in models[1].model.embedded_query.parameters())
    assert all(p.requires_grad for p in models[1].model.language_model.parameters())
    batch = theirs.batch(config)
    assert not batch["query_turn"].any()
    assert models[1](**batch).loss.isfinite()


def test_what_is_measured(results: TrainingResults) -> None:
    by_name = {(one.job["stage"], one.job["subject"]): one for one in results.measured}
    for stage in STAGE_NAMES:
        ours, theirs = by_name[stage, FLASHSLOTH], by_name[stage, ALL_TOKENS]
        assert len(ours.found["seconds"]) == STEPS
        assert theirs.found["positions"] > ours.found["positions"]
        assert theirs.found["step_bytes"] > ours.found["step_bytes"] > ours.found["gradient_bytes"]
        assert ours.tensor_bytes > ours.found["weight_bytes"]
    instruction = by_name["instruction", FLASHSLOTH].found
    assert instruction["optimizer_bytes"] >= 2 * instruction["gradient_bytes"]
    assert by_name["alignment", FLASHSLOTH].found["learning"] < instruction["learning"]


def test_what_is_counted(results: TrainingResults) -> None:
    assert len(results.counted) == 8
    for one in results.counted:
        assert one.total > one.activations > 0
    plain, again = (
        next(c for c in results.counted if c.stage == "instruction" and c.activation_checkpointing is recomputed)
        for recomputed in (False, True)
    )
    assert again.activations < plain.activations
    assert again.optimizer == plain.optimizer == 2 * plain.gradients


def test_the_report(results: TrainingResults, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = markdown(results)
    assert text.count("| less |") == 2 + 4
    assert "Counted, not measured" in text
    files = write_training_report(results, tmp_path)
    assert load_training_results(files[0]) == results
    capsys.readouterr()
    assert main(["bench", "--training", "--from", str(files[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == dataclasses.asdict(results)
    assert main(["bench", "--training", "--from", str(files[0]), "--out", str(tmp_path / "again")]) == 0
    assert "| instruction | FlashSloth |" in capsys.readouterr().out
    assert (tmp_path / "again" / "training.md").read_text(encoding="utf-8") == text


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BenchmarkError, match="stage is 'encoder'; expected one of alignment, instruction"):
        job(FLASHSLOTH, "encoder")
    with pytest.raises(BenchmarkError, match="rows is 0; expected a whole number, at least 1"):
        job(FLASHSLOTH, "alignment", rows=0)
    with pytest.raises(BenchmarkError, match=r"request is 'sing'; expected one of .*measure"):
        Worker().answer({"do": "sing"})
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    assert main(["bench", "--training", "--from", str(tmp_path / "x.json")]) == 2
    assert main(["bench", "--training", "--layers", "0"]) == 2
    assert "--layers is 0; expected at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_of_their_own(tmp_path: Path) -> None:
    assert main(["bench", "--training", "--quick", "--repeats", "1", "--threads", "1", "--out", str(tmp_path)]) == 0
    found = load_training_results(tmp_path / "training.json")
    assert [one.job["layers"] for one in found.measured] == [None] * 4


def test_full_depth_is_counted_whatever_was_measured() -> None:
    few, all_of_them = (dataclasses.replace(job(FLASHSLOTH, "alignment"), layers=layers) for layers in (1, None))
    assert count(few, False) == count(all_of_them, False)
