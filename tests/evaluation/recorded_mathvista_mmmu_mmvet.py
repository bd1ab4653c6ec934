"""Answers that others have published to MathVista, MMMU and MM-Vet, turned into predictions with their judgements."""

from __future__ import annotations

import groundtruth

from flashsloth.evaluation.item import Prediction

CHOICE = "multiple-choice"


def mmvet(model: str, runs: int) -> list[Prediction]:
    """LLaVA-1.5, with GPT-4's grades of 2023; MM-Vet's truths are nowhere to be had, and grades need none."""
    answers = groundtruth.whole(f"mmvet/{model}.json")
    grades = groundtruth.whole(f"mmvet/{model}_gpt-4-grade-{runs}runs.json")
    rows = {f"v1_{row['question_id']}": row for row in groundtruth.lines("mmvet/llava-mm-vet.jsonl")}
    return [
        Prediction(
            name,
            row["text"],
            {"question": row["text"], "answer": "", "abilities": []},
            name,
            row["image"],
            answers[name],
            judgements=tuple(grades[name]["content"]),
        )
        for name, row in rows.items()
    ]


def mmmu(model: str) -> list[Prediction]:
    """LLaVA-1.5-13B or Qwen-VL-7B-Chat, as they answered, with today's key."""
    key = groundtruth.whole("mmmu/answer_dict_val_2024.json")
    subjects = sorted(path for path in (groundtruth.FOLDER / "mmmu" / model).iterdir() if path.is_dir())
    rows = [row for path in subjects for row in groundtruth.whole(f"mmmu/{model}/{path.name}/output.json")]
    found = []
    for row in rows:
        truth = key[row["id"]]["ground_truth"]
        options = list(row["index2ans"].values()) if row["question_type"] == CHOICE else []
        truths = {"answer": truth if isinstance(truth, list) else [truth], "options": options}
        found.append(Prediction(row["id"], "", truths, row["id"], row["id"], row["response"]))
    return found


def mathvista(name: str) -> list[Prediction]:
    """A system's answers; what a judge extracted of each is its judgement."""
    found = []
    for pid, row in groundtruth.whole(f"mathvista/output_{name}.json").items():
        kept = ("answer", "question_type", "answer_type", "precision")
        truth = {**{key: row[key] for key in kept}, "choices": row["choices"] or [], "query": row["question"]}
        response = row["response"] if isinstance(row["response"], str) else ""
        found.append(Prediction(pid, "", truth, pid, pid, response, judgements=(row["extraction"],)))
    return found
