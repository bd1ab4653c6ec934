"""Two runs of POPE on drawn pictures, for tests: data as its publishers lay it out, and files of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from flashsloth.evaluation.item import Item, Prediction
from flashsloth.evaluation.predictions import PREDICTIONS, data_digest, write_predictions
from flashsloth.evaluation.tasks import make_task
from flashsloth.evaluation.tasks.pope import CATEGORIES, PICTURES

THINGS = ("dog", "chair", "table")


def draw_pope(folder: Path, pictures: int = 4) -> list[Item]:
    """POPE's files: three questions of each category about each picture, half of them to be answered by yes."""
    (folder / PICTURES).mkdir(parents=True)
    names = [f"COCO_val2014_{number:012}.jpg" for number in range(pictures)]
    for number, name in enumerate(names):
        Image.new("RGB", (640, 480), (40 * number, 90, 160)).save(folder / PICTURES / name)
    for kind, category in enumerate(CATEGORIES):
        rows = [
            {"question_id": place, "image": name, "text": f"Is there a {thing} in the image?",
             "label": "yes" if (place + number + kind) % 2 else "no"}
            for number, name in enumerate(names)
            for place, thing in enumerate(THINGS)
        ]  # fmt: skip
        (folder / f"coco_pope_{category}.json").write_text("\n".join(map(json.dumps, rows)))
    return list(make_task("pope").read(folder))


def write_run(
    folder: Path, items: list[Item], answer: Callable[[int, Item], str], name: str = "nano", **header: Any
) -> Path:
    """A run's folder, with an answer to each question."""
    folder.mkdir(parents=True)
    said = [
        Prediction(one.id, one.prompt, one.truth, one.group, one.picture, answer(place, one), 2, place=place)
        for place, one in enumerate(items)
    ]
    data = {"items": len(items), "digest": data_digest(items)}
    facts = {"task": "pope", "preset": "paper", "data": data, "model": {"kind": "flashsloth", "name": name}}
    write_predictions(folder / PREDICTIONS, {**facts, **header}, said)
    return folder


def right(place: int, item: Item) -> str:
    """The answer that counts."""
    return item.truth["label"].capitalize()


def wrong(place: int, item: Item) -> str:
    """The other one."""
    return {"yes": "No", "no": "Yes"}[item.truth["label"]]
