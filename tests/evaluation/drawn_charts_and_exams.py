"""As `drawn_benchmarks.py`: AI2D, ChartQA, DocVQA, RealWorldQA, MathVista, MMMU and MM-Vet in every layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from drawn_benchmarks import hub, picture, put, shown

from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.settings import PAPER
from flashsloth.evaluation.tasks import make_task

MMVET = [
    ("v1_0", "What is x?", "-1<AND>-5", ["ocr", "math"], 0),
    ("v1_1", "Who is it?", "Ann<OR>Bob", ["rec"], 1),
    ("v1_2", "What is it?", "a dog", ["rec", "know", "gen", "spat"], 0),
]
MMMU: list[tuple[str, str, str, str, list[int]]] = [
    ("validation_Art_1", "Which <image 1> is it?", "['a cat', 'a dog', 'a cow', 'a hen']", "B", [0]),
    ("validation_Art_2", "How tall is <image 1>?", "[]", "3.5", [1]),
    ("validation_Math_1", "Is <image 1> like <image 2>?", "['<image 3>', 'no']", "A", [0, 1, 0]),
    ("validation_Math_2", "How often is <image 2> in it?", "[]", "['two', '2']", [0, 1]),
]
"""The last shows its second picture alone."""
MATHVISTA: list[dict[str, Any]] = [
    {"answer": "5", "answer_type": "integer"},
    {"answer": "1.2", "answer_type": "float", "precision": 1.0},
    {"answer": "1.25", "answer_type": "float", "precision": 2.0, "unit": "cm"},
    {"answer": "[1, 2]", "answer_type": "list"},
    {"answer": "no", "answer_type": "text", "question_type": "multi_choice", "choices": ["yes", "no"]},
]
CHARTQA = [
    ("human", "How many?", "14", 0),
    ("human", "Which one?", "Yes", 0),
    ("augmented", "How many?", "20%", 1),
]
DOCVQA = [
    (337, "What is the date?", ["Jan 1", "January 1"], 0),
    (338, "Who signed?", ["Ann"], 1),
]
AI2D = [("What is A?", ["one", "two", "three", "four"], "2", 0), ("What is B?", ["x", "y"], "0", 1)]
REALWORLDQA = [
    (
        "Which way?\n\nA. left\nB. right\nC. up\nPlease answer directly with only the letter of the correct option and "
        "nothing else.",
        "B",
        0,
    ),
    ("How many cars?\nPlease answer directly with a single word or number.", "2", 1),
]
OTHER = {"question": "Is it another split?"}


def mmvet_own(folder: Path) -> None:
    rows = {
        name: {"imagename": f"v1_{number}.png", "question": asked, "answer": answer, "capability": abilities}
        for name, asked, answer, abilities, number in MMVET
    }
    put(folder / "mm-vet" / "mm-vet.json", rows)
    for number in range(2):
        put(folder / "mm-vet" / "images" / f"v1_{number}.png", picture(number))


def mmvet_hub(folder: Path) -> None:
    rows = [
        {
            "question_id": name,
            "image": shown(number),
            "question": asked,
            "answer": answer,
            "capability": ",".join(kinds),
        }
        for name, asked, answer, kinds, number in MMVET
    ]
    hub(folder, "mmvet", rows, OTHER)


def mmmu_hub(folder: Path) -> None:
    """A file a subject, with the other splits beside it."""
    for subject in ("Art", "Math"):
        rows = []
        for name, asked, options, answer, numbers in MMMU:
            if f"_{subject}_" in name:
                places = {f"image_{place}": None for place in range(1, 8)}
                places.update({f"image_{place}": shown(number) for place, number in enumerate(numbers, 1)})
                kind = "open" if options == "[]" else "multiple-choice"
                rows.append(
                    {
                        "id": name,
                        "question": asked,
                        "options": options,
                        "answer": answer,
                        "question_type": kind,
                        **places,
                    }
                )
        rows += [{**rows[0], "id": f"dev_{subject}_1", **OTHER, "image_7": shown(2)}]  # so that the column has a type
        for place in range(1, 7):
            rows[-1][f"image_{place}"] = shown(2)
        hub(folder, "mmmu", rows, {"id": f"test_{subject}_1", **OTHER}, config=subject)


def mathvista_rows(precision: Callable[[float | None], Any]) -> list[dict[str, Any]]:
    """Rows without pictures."""
    same = {"unit": None, "question_type": "free_form", "choices": None, "question": "What is it?"}
    return [
        {
            "pid": str(place),
            "image": f"images/{place}.png",
            **same,
            **row,
            "precision": precision(row.get("precision")),
            "metadata": {"split": "testmini", "source": "some"},
        }
        for place, row in enumerate(MATHVISTA, 1)
    ]


def mathvista_own(folder: Path) -> None:
    rows = mathvista_rows(lambda value: value and int(value))
    put(folder / "annot_testmini.json", {row.pop("pid"): row for row in rows})
    for place in range(1, len(rows) + 1):
        put(folder / "images" / f"{place}.png", picture(place % 2))


def mathvista_hub(folder: Path) -> None:
    rows = [
        {**row, "decoded_image": shown(place % 2)} for place, row in enumerate(mathvista_rows(lambda value: value), 1)
    ]
    rows.append({**rows[0], **OTHER, "metadata": {"split": "test", "source": "some"}})
    hub(folder, "mathvista", rows, OTHER)


def chartqa_own(folder: Path) -> None:
    for half in ("human", "augmented"):
        rows = [
            {"imgname": f"{number}.png", "query": asked, "label": answer}
            for kind, asked, answer, number in CHARTQA
            if kind == half
        ]
        put(folder / "ChartQA Dataset" / "test" / f"test_{half}.json", rows)
    for number in range(2):
        put(folder / "ChartQA Dataset" / "test" / "png" / f"{number}.png", picture(number))


def chartqa_hub(folder: Path) -> None:
    rows = [
        {"type": f"{kind}_test", "question": asked, "answer": answer, "image": shown(number)}
        for kind, asked, answer, number in CHARTQA
    ]
    hub(folder, "chartqa", rows, OTHER)


def docvqa_own(folder: Path) -> None:
    rows = [
        {
            "questionId": name,
            "question": asked,
            "image": f"documents/abcd000{number}_1.png",
            "ucsf_document_id": f"abcd000{number}",
            "ucsf_document_page_no": "1",
            "answers": answers,
            "data_split": "val",
        }
        for name, asked, answers, number in DOCVQA
    ]
    put(folder / "val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data": rows})
    for number in range(2):
        put(folder / "spdocvqa_images" / f"abcd000{number}_1.png", picture(number))


def docvqa_hub(folder: Path) -> None:
    rows = [
        {
            "questionId": str(name),
            "question": asked,
            "image": shown(number),
            "ucsf_document_id": f"abcd000{number}",
            "ucsf_document_page_no": "1",
            "answers": answers,
            "data_split": "val",
        }
        for name, asked, answers, number in DOCVQA
    ]
    rows.append({**rows[0], **OTHER, "data_split": "test"})
    hub(folder, "docvqa", rows, OTHER)


def ai2d_hub(folder: Path) -> None:
    rows = [
        {"question": asked, "options": options, "answer": answer, "image": shown(number)}
        for asked, options, answer, number in AI2D
    ]
    hub(folder, "ai2d", rows, OTHER)


def realworldqa_hub(folder: Path) -> None:
    rows = [{"image": shown(number), "question": asked, "answer": answer} for asked, answer, number in REALWORLDQA]
    hub(folder, "realworldqa", rows, OTHER)


LAYOUTS: dict[str, dict[str, Callable[[Path], None]]] = {
    "mmvet": {"own": mmvet_own, "hub": mmvet_hub},
    "mmmu": {"hub": mmmu_hub},
    "mathvista": {"own": mathvista_own, "hub": mathvista_hub},
    "ai2d": {"hub": ai2d_hub},
    "chartqa": {"own": chartqa_own, "hub": chartqa_hub},
    "docvqa": {"own": docvqa_own, "hub": docvqa_hub},
    "realworldqa": {"hub": realworldqa_hub},
}
"""Of each task: what draws it."""


def read(folder: Path, name: str, layout: str, preset: str = PAPER) -> list[Item]:
    LAYOUTS[name][layout](folder)
    return list(make_task(name, preset).read(folder))


def content(item: Item) -> list[bytes]:
    return [one() if callable(one) else one.read_bytes() for one in item.pictures]


def predict(item: Item, answer: str, *judgements: str) -> Prediction:
    return Prediction(item.id, item.prompt, item.truth, item.group, item.picture, answer, judgements=judgements)


def answered(said: str, **truth: Any) -> Prediction:
    """An answer to a question of which only some of the truth matters."""
    return Prediction("validation_Art_1", "", truth, "1", "1", said)
