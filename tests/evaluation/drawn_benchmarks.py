"""Small benchmarks, drawn for the purpose, in every layout that people have: the publishers' and the hub's.

Some of their questions are those of the recorded prompts.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw

from flashsloth.evaluation.settings import WORD_OR_PHRASE, settings_of

MME = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip
MME_WITH_FOLDERS = ("artwork", "landmark")
MME_REQUEST = " Please answer yes or no."
POPE_THINGS = ("dog", "car")
POPE_CATEGORIES = ("random", "popular", "adversarial")
MMBENCH = [
    (7, "", "What is it?", ["a cat", "a dog"], "B", 0),
    (9, "Look.", "What is it?", ["a cat", "a dog", "a cow", "a hen"], "A", 1),
    (1_000_007, "", "What is it?", ["a dog", "a cat"], "A", 0),
    (1_000_009, "Look.", "What is it?", ["a dog", "a cow", "a hen", "a cat"], "D", 1),
]
SEED = [("100", "What is it?", "A", 0), ("101", "Where is it?", "D", 1), ("100", "What is it?", "A", 0)]
GQA = [("201", "Is it overcast?", "no", 0), ("202", "Who is it?", "woman", 1), ("203", "Is it red?", "yes", 0)]
SCIENCE = [
    ("5", "Which?", ["a", "b"], 1, "", 0),
    ("6", "Why?", ["a", "b"], 0, "", None),
    ("11", "Which?", ["a", "b", "c"], 2, "Read this.", 1),
]
TEXTVQA = [
    (34602, "what is the brand of this camera?", ["dakota"] * 3 + ["nous"] * 7, ["DAKOTA", "DIGITAL"], 0),
    (34603, "what does the sign say?", ["stop"] * 10, [], 1),
]


@cache
def picture(number: int) -> bytes:
    """A PNG."""
    image = Image.new("RGB", (40, 30), ("white", "khaki", "skyblue")[number])
    ImageDraw.Draw(image).ellipse((5, 5, 15 + 5 * number, 25), fill="black")
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def put(path: Path, content: Any) -> None:
    """A file of bytes, text, JSON, or (of a list, where its name says so) JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl" or path.name.startswith("coco_pope"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def shown(number: int | None) -> dict[str, Any] | None:
    """A picture as the hub's files hold it."""
    return None if number is None else {"bytes": picture(number), "path": None}


def hub(folder: Path, task: str, rows: list[dict[str, Any]], other: dict[str, Any], config: str | None = None) -> None:
    """The hub's files of a task, beside another split and another config that must not be taken.

    Args:
        folder: of the data set.
        task: whose split and config it is.
        rows: of the split.
        other: what differs in the others.
        config: another than the task's.
    """
    row = settings_of(task)
    config = config or row.config or "data"
    for inside, split, content in (
        (config, row.split, rows),
        (config, "train", [{**one, **other} for one in rows]),
        ("other", row.split, [{**one, **other} for one in rows]),
    ):
        path = folder / inside / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), path, row_group_size=2)


def pope_rows() -> list[tuple[str, str, str, str]]:
    """(category, picture, question, label)."""
    return [
        (category, f"COCO_val2014_{number:012}", f"Is there a {thing} in the image?", label)
        for category in POPE_CATEGORIES
        for number in range(2)
        for thing, label in zip(POPE_THINGS, ("yes", "no"), strict=True)
    ]


def pope_own(folder: Path, inside: str = ".") -> None:
    for category in POPE_CATEGORIES:
        rows = [row for row in pope_rows() if row[0] == category]
        put(
            folder / inside / f"coco_pope_{category}.json",
            [
                {"question_id": place, "image": f"{name}.jpg", "text": f"{question} ", "label": label}
                for place, (_, name, question, label) in enumerate(rows, 1)
            ],
        )
    for number in range(2):
        put(folder / "val2014" / f"COCO_val2014_{number:012}.jpg", picture(number))


def pope_llava(folder: Path) -> None:
    pope_own(folder, "coco")
    rows = [
        {"question_id": place, "image": f"{name}.jpg", "text": question + WORD_OR_PHRASE, "category": category}
        for place, (category, name, question, _) in enumerate(pope_rows())
    ]
    put(folder / "llava_pope_test.jsonl", rows)


def pope_hub(folder: Path) -> None:
    rows = [
        {
            "id": str(place),
            "question_id": str(place),
            "question": f" {question}",
            "answer": label.capitalize(),
            "image_source": name,
            "image": shown(int(name[-1])),
            "category": category,
        }
        for place, (category, name, question, label) in enumerate(pope_rows())
    ]
    hub(folder, "pope", rows, {"question": "Is it another split?"})


def mme_rows() -> list[tuple[str, str, str, str]]:
    """(category, picture, question, answer)."""
    return [
        (category, "0001", question + MME_REQUEST, answer)
        for category in MME
        for question, answer in (("Is this a dog?", "Yes"), ("Is this a cat? ", "No"))
    ]


def mme_own(folder: Path) -> None:
    for category in MME:
        inside = folder / "MME_Benchmark_release_version" / category
        pictures, texts = ("images", "questions_answers_YN") if category in MME_WITH_FOLDERS else (".", ".")
        put(inside / pictures / "0001.png", picture(0))
        pairs = [f"{question}\t{answer}\n" for one, _, question, answer in mme_rows() if one == category]
        put(inside / texts / "0001.txt", "".join(pairs))


def mme_hub(folder: Path) -> None:
    rows = [
        {
            "question_id": f"{category}/{name}.png",
            "image": shown(0),
            "question": question,
            "answer": answer,
            "category": category,
        }
        for category, name, question, answer in mme_rows()
    ]
    hub(folder, "mme", rows, {"question": "Is it another split?"})


def mmbench_rows(missing: str) -> list[dict[str, Any]]:
    """Rows without pictures."""
    return [
        {
            "index": index,
            "question": question,
            "hint": hint or missing,
            **dict(zip("ABCD", [*options, missing, missing][:4], strict=True)),
            "answer": answer,
            "category": "some",
            "source": "",
            "number": number,
        }
        for index, hint, question, options, answer, number in MMBENCH
    ]


def mmbench_table(picture_of: Callable[[int], bytes], *, by_reference: bool = False) -> str:
    """Tab-separated values, one field with a line break; turned questions may name the row that has their picture."""
    rows = mmbench_rows("")
    for row in rows:
        row["image"] = base64.b64encode(picture_of(row.pop("number"))).decode()
        row["comment"] = 'of "two\nlines"'
        if by_reference and row["index"] > 1_000_000:
            row["image"] = str(row["index"] % 1_000_000)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def mmbench_own(folder: Path, *, by_reference: bool = False) -> None:
    put(folder / "mmbench_dev_20230712.tsv", mmbench_table(picture, by_reference=by_reference))


def mmbench_hub(folder: Path) -> None:
    rows = [{**row, "image": shown(row.pop("number"))} for row in mmbench_rows("nan")]
    hub(folder, "mmbench", rows, {"answer": "nan"})


def seedbench_rows() -> list[dict[str, Any]]:
    """Rows without pictures, the last about a video."""
    return [
        {
            "question_id": name,
            "question": question,
            **{f"choice_{letter}": letter for letter in "abcd"},
            "answer": answer,
            "data_id": f"{number}_99",
            "data_type": "image",
            "question_type_id": 1,
        }
        for name, question, answer, number in SEED
    ]


def seedbench_own(folder: Path) -> None:
    rows = seedbench_rows()
    video = {**rows[0], "question_id": "v1", "data_type": "video", "data_id": "1.mp4"}
    put(folder / "SEED-Bench.json", {"questions": [*rows, video], "question_type": {}})
    for number in range(2):
        put(folder / "SEED-Bench-image" / f"{number}_99", picture(number))


def seedbench_hub(folder: Path) -> None:
    rows = [{**row, "image": [shown(int(row["data_id"][0]))]} for row in seedbench_rows()]
    rows.append({**rows[0], "question_id": "v1", "data_type": "video", "image": [shown(0), shown(1)]})
    hub(folder, "seedbench", rows, {"question": "Is it another split?"})


def gqa_own(folder: Path) -> None:
    put(
        folder / "testdev_balanced_questions.json",
        {
            name: {"imageId": f"n{number}", "question": question, "answer": answer, "isBalanced": True}
            for name, question, answer, number in GQA
        },
    )
    for number in range(2):
        put(folder / "images" / f"n{number}.jpg", picture(number))


def gqa_hub(folder: Path) -> None:
    rows = [
        {"id": name, "imageId": f"n{number}", "question": question, "answer": answer}
        for name, question, answer, number in GQA
    ]
    hub(folder, "gqa", rows, {"question": "Is it another split?"})
    images = [{"id": f"n{number}", "image": shown(number)} for number in range(2)]
    hub(folder, "gqa", images, {"image": shown(2)}, config="testdev_balanced_images")


def scienceqa_problems(folder: Path) -> None:
    problems = {
        name: {
            "question": question,
            "choices": choices,
            "answer": answer,
            "hint": hint,
            "image": None if number is None else "image.png",
        }
        for name, question, choices, answer, hint, number in SCIENCE
    }
    put(folder / "problems.json", problems)
    put(folder / "pid_splits.json", {"train": ["1"], "test": list(problems)})
    _scienceqa_pictures(folder)


def _scienceqa_pictures(folder: Path) -> None:
    for name, *_, number in SCIENCE:
        if number is not None:
            put(folder / "images" / "test" / name / "image.png", picture(number))


def scienceqa_llava(folder: Path) -> None:
    rows = []
    for name, question, choices, answer, hint, number in SCIENCE:
        options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABC", choices, strict=False))
        asked = (f"Context: {hint}\n" if hint else "") + f"{question}\n{options}"
        row: dict[str, Any] = {"id": name}
        if number is not None:
            row["image"] = f"{name}/image.png"
            asked = f"<image>\n{asked}"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": "ABC"[answer]}]
        rows.append({**row, "conversations": turns})
    put(folder / "llava_test_CQM-A.json", rows)
    _scienceqa_pictures(folder)


def scienceqa_hub(folder: Path) -> None:
    rows = [
        {"image": shown(number), "question": question, "choices": choices, "answer": answer, "hint": hint}
        for _, question, choices, answer, hint, number in SCIENCE
    ]
    hub(folder, "scienceqa", rows, {"question": "Is it another split?"})


def textvqa_own(folder: Path) -> None:
    rows = [
        {"question_id": name, "image_id": f"{number:016x}", "question": question, "answers": answers}
        for name, question, answers, _, number in TEXTVQA
    ]
    put(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    for number in range(2):
        put(folder / "train_images" / f"{number:016x}.jpg", picture(number))


def textvqa_rosetta(folder: Path) -> None:
    textvqa_own(folder)
    rows = [{"image_id": f"{number:016x}", "ocr_tokens": tokens} for *_, tokens, number in TEXTVQA]
    put(folder / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": rows})


def textvqa_llava(folder: Path) -> None:
    textvqa_own(folder)
    rows = [
        {
            "question_id": f"{number:016x}",
            "image": f"{number:016x}.jpg",
            "text": f"{question.capitalize()}\nReference OCR token: {', '.join(tokens)}{WORD_OR_PHRASE}",
        }
        for _, question, _, tokens, number in TEXTVQA
    ]
    put(folder / "llava_textvqa_val_v051_ocr.jsonl", rows)


def textvqa_hub(folder: Path) -> None:
    rows = [
        {
            "question_id": name,
            "image_id": f"{number:016x}",
            "question": question,
            "answers": answers,
            "ocr_tokens": tokens,
            "image": shown(number),
        }
        for name, question, answers, tokens, number in TEXTVQA
    ]
    hub(folder, "textvqa", rows, {"question": "Is it another split?"})


LAYOUTS: dict[str, dict[str, Callable[[Path], None]]] = {
    "pope": {"own": pope_own, "llava": pope_llava, "hub": pope_hub},
    "mme": {"own": mme_own, "hub": mme_hub},
    "mmbench": {
        "own": mmbench_own,
        "by reference": lambda folder: mmbench_own(folder, by_reference=True),
        "hub": mmbench_hub,
    },
    "seedbench": {"own": seedbench_own, "hub": seedbench_hub},
    "gqa": {"own": gqa_own, "hub": gqa_hub},
    "scienceqa": {"problems": scienceqa_problems, "llava": scienceqa_llava, "hub": scienceqa_hub},
    "textvqa": {"rosetta": textvqa_rosetta, "llava": textvqa_llava, "hub": textvqa_hub},
}
"""Of each task: what draws it."""
