"""Published answers score what was published, to the digit, by `flashsloth eval score` as it is typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import groundtruth
import pytest
import recorded_answers
import recorded_mathvista_mmmu_mmvet as recorded

from flashsloth.cli.app import main
from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.tasks import make_task
from flashsloth.evaluation.tasks.mmmu import KEY_OF_2023

pytestmark = groundtruth.needed


def score(capsys: pytest.CaptureFixture[str], file: Path, *options: str) -> tuple[dict[str, str], dict[str, int]]:
    """(figures to two places, numbers) of a file."""
    assert main(["eval", "score", str(file), "--json", *options]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    figures = {one["name"]: f"{one['value']:.2f}" for one in summary["figures"]}
    for one in summary["figures"]:
        assert one["low"] <= one["value"] <= one["high"]
    return figures, {name: value for name, value in summary.items() if isinstance(value, int)}


def refusal(capsys: pytest.CaptureFixture[str], file: Path, *options: str) -> str:
    """What the command says against a file."""
    assert main(["eval", "score", str(file), *options]) == 2
    return capsys.readouterr().err


def pope_folder(folder: Path, random: str = "coco_pope_random.json") -> Path:
    """POPE's files, beside pictures of which only the names matter here."""
    (folder / "val2014").mkdir(parents=True)
    for category in recorded_answers.POPE:
        name = f"coco_pope_{category}.json"
        shutil.copyfile(groundtruth.FOLDER / "pope" / (random if category == "random" else name), folder / name)
        for row in groundtruth.lines(f"pope/{name}"):
            (folder / "val2014" / row["image"]).touch()
    return folder


def test_pope(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "pope", recorded_answers.pope())
    figures, numbers = score(capsys, file)
    assert [figures[f"f1, {one}"] for one in recorded_answers.POPE] == ["87.14", "86.25", "84.46"]
    assert figures["mean f1"] == "85.95"
    assert numbers["items"] == 8910
    assert numbers["pictures"] == 500
    assert score(capsys, file, "--data", str(pope_folder(tmp_path / "data")))[0] == figures


def test_pope_answers_with_the_newer_key_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "pope", recorded_answers.pope())
    newer = pope_folder(tmp_path / "newer", "coco_pope_random_3000.json")
    said = " ".join(refusal(capsys, file, "--data", str(newer)).split())
    assert "144 of 8,910" in said
    assert "questions that the data does not have" in said


def test_llavas_questions_with_the_newer_key_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "pope", recorded_answers.pope())
    newer = pope_folder(tmp_path / "newer", "coco_pope_random_3000.json")
    shutil.copyfile(groundtruth.FOLDER / "pope" / "llava_pope_test.jsonl", newer / "llava_pope_test.jsonl")
    assert "another version of POPE" in " ".join(refusal(capsys, file, "--data", str(newer)).split())


@pytest.mark.parametrize(
    ("answers", "perception", "cognition"),
    [(recorded_answers.mme_lavin, "963.61", "249.64"), (recorded_answers.mme_llava, "1531.32", "295.36")],
)
def test_mme(answers, perception: str, cognition: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mme", answers())
    figures, numbers = score(capsys, file)
    assert (figures["perception"], figures["cognition"]) == (perception, cognition)
    assert (numbers["items"], numbers["groups"]) == (2374, 1187)


def test_mme_with_its_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LLaVA's file of questions is what its preset asks, word for word and picture for picture."""
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mme", recorded_answers.mme_llava())
    assert score(capsys, file, "--data", str(mme_folder(tmp_path / "MME")))[0] == score(capsys, file)[0]


def mme_folder(folder: Path) -> Path:
    """MME as it is unpacked: some categories have folders inside them."""
    for row in groundtruth.lines("mme/llava_mme.jsonl"):
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row["image"]).touch()
    for path in sorted((groundtruth.FOLDER / "mme" / "questions").glob("*.txt")):
        inside = folder / path.stem
        texts = inside / "questions_answers_YN" if (inside / "images").is_dir() else inside
        texts.mkdir(exist_ok=True)
        for line in path.read_text(encoding="utf-8").splitlines():
            picture, question, answer = line.split("\t")
            with (texts / picture).with_suffix(".txt").open("a", encoding="utf-8") as file:
                file.write(f"{question}\t{answer}\n")
    return folder


def test_mmbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mmbench", recorded_answers.mmbench())
    figures, numbers = score(capsys, file)
    assert figures["circular"] == "67.69"
    assert (numbers["items"], numbers["groups"], numbers["unjudged"]) == (4377, 1176, 0)


def test_seedbench_of_gpt4v(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers, twice = recorded_answers.seed_gpt4v()
    assert twice == ["4312", "80460", "36415", "44157", "34388", "3037", "10526", "28147"]
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "seedbench", answers, "paper")
    figures, numbers = score(capsys, file)
    assert figures["all"] == "67.28"
    assert numbers["items"] == 17997


def test_seedbench_of_llava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = recorded_answers.seed_llava(as_recorded=True)
    assert len(answers) == 14233
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "seedbench", answers, "paper")
    assert main(["eval", "score", str(file), "--json"]) == 0
    said = capsys.readouterr()
    assert "answers that are there twice, and were counted once: 1" in " ".join(said.err.split())
    summary = json.loads(said.out)["summary"]
    assert f"{summary['figures'][0]['value']:.2f}" == "68.21"
    assert summary["items"] == 14232
    every = recorded_answers.save(tmp_path / "every.jsonl", "seedbench", recorded_answers.seed_llava(), "paper")
    assert score(capsys, every)[0]["image"] == "68.21"


def test_seedbench_with_two_answers_to_a_question_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = recorded_answers.seed_llava()
    rows: Sequence[Prediction] = [first, replace(first, answer="E"), *others]
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "seedbench", rows, "paper")
    assert f"{first.id!r} twice, and differing" in " ".join(refusal(capsys, file).split())


def test_scienceqa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the rule of lmms-eval 0.7.3, which is LLaVA's; the published copy takes "A. text" for wrong."""
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "scienceqa", recorded_answers.scienceqa(), "paper")
    figures, numbers = score(capsys, file, "--preset", "lmms-0.7.3")
    assert figures == {"image": "71.64", "all": "74.39"}
    assert numbers["items"] == 4241
    assert score(capsys, file)[0] == {"image": "71.64", "all": "64.82"}


@pytest.mark.parametrize(
    ("model", "once", "runs", "mean"),
    [
        ("llava-v1.5-13b", "36.1", ["36.1", "36.5", "36.3"], "36.3"),
        ("llava-v1.5-7b", "31.2", ["31.2", "30.8", "31.2"], "31.1"),
    ],
)
def test_mmvet(
    model: str, once: str, runs: Sequence[str], mean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published are one run of the larger model, and the means of three."""

    def total(predictions: Sequence[Prediction]) -> str:
        file = recorded_answers.save(tmp_path / "predictions.jsonl", "mmvet", predictions, "paper")
        figures, numbers = score(capsys, file)
        assert (numbers["items"], numbers["judged"], numbers["unjudged"]) == (218, 218, 0)
        return f"{float(figures['total']):.1f}"

    three = recorded.mmvet(model, 3)
    assert total(recorded.mmvet(model, 1)) == once
    assert [total([replace(one, judgements=(one.judgements[run],)) for one in three]) for run in range(3)] == runs
    assert total(three) == mean


@pytest.mark.parametrize(
    ("model", "with_2023", "today"), [("llava1.5_13b", "36.4", "36.7"), ("qwen_vl", "35.9", "36.1")]
)
def test_mmmu(model: str, with_2023: str, today: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mmmu", recorded.mmmu(model), "paper")

    def accuracy(scorer: str) -> str:
        figures, numbers = score(capsys, file, "--scorer", scorer)
        assert numbers["items"] == 900
        return f"{float(figures['accuracy']):.1f}"

    assert accuracy("MMMU's parser and key of 2023") == with_2023
    assert accuracy("MMMU's parser of 2023") == today


def test_mmmu_draws_as_its_publishers_did() -> None:
    """Every letter that they parsed or drew, of both models."""
    for model in ("llava1.5_13b", "qwen_vl"):
        published = groundtruth.whole(f"mmmu/{model}/total_val_output.json")
        answers = [one for one in recorded.mmmu(model) if one.truth["options"]]
        scored = make_task("mmmu", scorer="MMMU's parser of 2023").score_all([[one] for one in answers])
        assert [one.said.split(",")[0] for one in scored] == [published[one.id] for one in answers]


def test_mmmus_key_of_2023_is_the_publishers() -> None:
    keys = [groundtruth.whole(f"mmmu/answer_dict_val_{year}.json") for year in (2023, 2024)]
    changed = {name: truth["ground_truth"] for name, truth in keys[0].items() if truth != keys[1][name]}
    assert changed == KEY_OF_2023


@pytest.mark.parametrize(
    ("system", "accuracy", "of_2023"),
    [
        ("llava_llama_2_13b", "26.1", "26.1"),
        ("bard", "34.8", "34.8"),
        ("random_guess", "17.9", "17.9"),
        ("gpt4_2shot_code", "27.0", "26.0"),
    ],
)
def test_mathvista(
    system: str, accuracy: str, of_2023: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mathvista", recorded.mathvista(system), "paper")
    found, numbers = score(capsys, file)
    assert numbers["items"] == 1000
    older, _ = score(capsys, file, "--scorer", "extracted, then equal; whole numbers as in 2023")
    assert (f"{float(found['accuracy']):.1f}", f"{float(older['accuracy']):.1f}") == (accuracy, of_2023)


def test_the_rules_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded_answers.save(tmp_path / "predictions.jsonl", "mathvista", recorded.mathvista("bard")[:20], "paper")
    assert main(["eval", "score", str(file), "--scorer", "extracted, then equal; whole numbers as in 2023"]) == 0
    assert "counted by: extracted, then equal; whole numbers as in 2023" in " ".join(capsys.readouterr().out.split())
    assert "cannot be scored by 'best'" in " ".join(refusal(capsys, file, "--scorer", "best").split())
