"""POPE: is there such a thing in the picture? 9,000 questions about 500 pictures, in three categories.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (2023). The random category has 2,910
questions in one version of its files and 3,000 in another, in another order: an item is its picture and its question,
never its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import (
    find_picture,
    no_data,
    parquet_files,
    parquet_rows,
    read_json_file,
    rows_with,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import Task, share

CATEGORIES = ("random", "popular", "adversarial")
LABELS = "yes", "no"
PICTURES = "val2014"


class Pope(Task):
    """See the module."""

    files = "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json beside val2014/"
    columns = ("question", "answer", "image_source", "image", "category")

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        own = {category: folder / f"coco_pope_{category}.json" for category in CATEGORIES}
        if any(path.is_file() for path in own.values()):
            for category, path in own.items():
                for row in rows_with(read_json_file(path), ("image", "text", "label"), path):
                    picture = find_picture(folder / PICTURES, row["image"])
                    yield self._item(category, Path(row["image"]).stem, row["text"], row["label"], picture)
        elif files := parquet_files(folder, self.columns):
            for row, pictures in parquet_rows(files, ["image"], self.columns):
                source = Path(row["image_source"]).stem
                yield self._item(row["category"], source, row["question"], row["answer"], pictures["image"])
        else:
            raise no_data(self, folder)

    def _item(self, category: str, source: str, question: str, label: str, picture: Picture) -> Item:
        name = f"{category}/{source}/{question.strip()}"
        prompt = f"{self.settings.before}{question.strip()}{self.settings.after}"
        truth = {"category": category, "label": label}
        return Item(name, prompt, (picture,), truth, name, source)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """An answer is yes or no where nothing else stands in it."""
        [one] = group
        answer, label, category = one.answer.strip().lower(), one.truth["label"], one.truth["category"]
        is_right = answer == label
        outcome = {"yes": "true yes", "no": "true no"}[label] if is_right else f"false {answer}"
        counts = {f"{category}: {outcome}": 1.0, f"{category}: {label}": 1.0}
        return Scored((one,), counts, float(is_right), said=answer)

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Accuracy of all, and F1 of each category."""
        right = sum(sums[f"{one}: true {label}"] for one in CATEGORIES for label in LABELS)
        asked = sum(sums[f"{one}: {label}"] for one in CATEGORIES for label in LABELS)
        f1 = {f"f1, {one}": self._f1(sums, one) for one in CATEGORIES}
        return {"accuracy": share(right, asked), **f1, "f1": sum(f1.values()) / len(f1)}

    def _f1(self, sums: Mapping[str, Any], category: str) -> Any:
        found, said = sums[f"{category}: true yes"], sums[f"{category}: false yes"]
        return share(2 * found, found + said + sums[f"{category}: yes"])
