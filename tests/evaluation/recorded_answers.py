"""Answers that others have published, each turned into predictions: JSON lines, text, XLSX and a list without brackets.

Ids are those of the data, so that `flashsloth eval score --data` can join them; rows whose id was there before get a
number behind it, and are named.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import groundtruth

from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import write_predictions

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
POPE = ("random", "popular", "adversarial")
MME_REQUEST = " Please answer yes or no."
TURNED = 1_000_000


def save(path: Path, task: str, predictions: Iterable[Prediction], preset: str = "llava") -> Path:
    """A file of predictions, as of another program."""
    write_predictions(path, {"task": task, "preset": preset}, predictions)
    return path


def pope() -> list[Prediction]:
    """LLaVA-1.5-13B, with the keys of 2023."""
    labels = {
        (category, row["image"], row["text"]): row["label"]
        for category in POPE
        for row in groundtruth.lines(f"pope/coco_pope_{category}.json")
    }
    answers = {row["question_id"]: row for row in groundtruth.lines("pope/llava-v1.5-13b.jsonl")}
    found = []
    for row in groundtruth.lines("pope/llava_pope_test.jsonl"):
        category, question, answer = row["category"], row["text"].split("\n")[0], answers[row["question_id"]]
        picture = Path(row["image"]).stem
        truth = {"category": category, "label": labels[category, row["image"], question]}
        name = f"{category}/{picture}/{question}"
        found.append(Prediction(name, answer["prompt"], truth, name, picture, answer["text"]))
    return found


def mme_lavin() -> list[Prediction]:
    """LaVIN: a text file a category, of picture, question, truth and answer between tabs."""
    rows = [
        (path.stem, *line.split("\t"))
        for path in sorted((groundtruth.FOLDER / "mme" / "LaVIN").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [_mme(category, picture, question, "", truth, answer) for category, picture, question, truth, answer in rows]


def mme_llava() -> list[Prediction]:
    """LLaVA-1.5-13B: JSON lines, whose truths are in another place."""
    truths = {
        (path.stem, Path(picture).stem, question.replace(MME_REQUEST, "").strip()): truth
        for path in (groundtruth.FOLDER / "mme" / "questions").glob("*.txt")
        for picture, question, truth in (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    }
    found = []
    for row in groundtruth.lines("mme/llava-v1.5-13b.jsonl"):
        category, picture, question = row["question_id"].split("/")[0], row["question_id"], row["prompt"].split("\n")[0]
        truth = truths[category, Path(picture).stem, question]
        found.append(_mme(category, picture, question, row["prompt"], truth, row["text"]))
    return found


def _mme(category: str, picture: str, question: str, prompt: str, truth: str, answer: str) -> Prediction:
    shown = f"{category}/{Path(picture).stem}"
    asked = question.replace(MME_REQUEST, "").strip()
    return Prediction(f"{shown}/{asked}", prompt, {"category": category, "answer": truth.lower()}, shown, shown, answer)


def mmbench() -> list[Prediction]:
    """LLaVA-1.5-13B: the sheet that was handed in."""
    header, *rows = read_sheet(groundtruth.FOLDER / "mmbench" / "llava-v1.5-13b.xlsx")
    found = []
    for cells in rows:
        row = {name: cells.get(column, "") for column, name in header.items()}
        options = {letter: row[letter] for letter in "ABCD" if row[letter]}
        truth = {"answer": row["answer"], "options": options, "question": row["question"]}
        group = str(int(row["index"]) % TURNED)
        found.append(Prediction(row["index"], "", truth, group, group, row["prediction"]))
    return found


def read_sheet(path: Path) -> list[dict[str, str]]:
    """(column -> text) of each row of an XLSX file's first sheet, whose texts stand in the cells."""
    with zipfile.ZipFile(path) as file, file.open("xl/worksheets/sheet1.xml") as sheet:
        rows = ElementTree.parse(sheet).iter(f"{SHEET}row")
        return [
            {
                cell.attrib["r"].rstrip("0123456789"): "".join(
                    part.text or "" for part in cell.iter() if part.tag in (f"{SHEET}t", f"{SHEET}v")
                )
                for cell in row
            }
            for row in rows
        ]


def seed_gpt4v() -> tuple[list[Prediction], list[str]]:
    """GPT-4V: lines of a list without its brackets; (every row as published, ids that are there twice)."""
    text = (groundtruth.FOLDER / "seedbench" / "GPT-4V.json").read_text(encoding="utf-8")
    rows = json.loads(f"[{text.strip().rstrip(',')}]")
    return _seed([(row["question_id"], row["prediction"], row["gt_answer"]) for row in rows])


def seed_llava(*, as_recorded: bool = False) -> list[Prediction]:
    """LLaVA-1.5-13B's answers about pictures, with GPT-4V's truths; `as_recorded` leaves equal ids equal."""
    truths = {one.id: one.truth["answer"] for one in seed_gpt4v()[0]}
    rows = [row for row in groundtruth.lines("seedbench/llava-v1.5-13b.jsonl") if row["question_id"] in truths]
    asked = [
        (row["question_id"], row["prediction"], truths[row["question_id"]])
        for row in rows
        if not row["question_id"].startswith("v")
    ]
    return [_seed_row(*row) for row in asked] if as_recorded else _seed(asked)[0]


def _seed(rows: Sequence[tuple[str, str, str]]) -> tuple[list[Prediction], list[str]]:
    found: dict[str, Prediction] = {}
    twice = []
    for name, answer, truth in rows:
        if name not in found:
            found[name] = _seed_row(name, answer, truth)
            continue
        if found[name].truth["answer"] != truth:
            raise ValueError(f"{name} is there twice, with differing truths")
        twice.append(name)
        found[f"{name}#2"] = _seed_row(f"{name}#2", answer, truth)
    return list(found.values()), twice


def _seed_row(name: str, answer: str, truth: str) -> Prediction:
    kind = "video" if name.startswith("v") else "image"
    return Prediction(name, "", {"answer": truth, "type": kind}, name, name, answer)


def scienceqa() -> list[Prediction]:
    """LLaVA-1.5-13B, of all 4,241 questions."""
    output = groundtruth.whole("scienceqa/llava-v1.5-13b_output.jsonl")
    return [
        Prediction(
            row["question_id"],
            row["question"],
            {"answer": row["ground_truth"], "type": "image" if row["is_multimodal"] else "text"},
            row["question_id"],
            row["question_id"],
            row["pred"],
        )
        for row in [*output["correct"], *output["incorrect"]]
    ]
