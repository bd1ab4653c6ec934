"""POPE: is there such a thing in the picture? 9,000 questions about 500 pictures, in three categories.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (2023). The random category has 2,910
questions in one version of its files and 3,000 in another, in another order: an item is its picture and its question,
never its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import (
    find_file,
    find_picture,
    no_data,
    parquet_files,
    parquet_rows,
    read_json_file,
    rows_with,
    texts,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.settings import LLAVA
from flashsloth.evaluation.task import EvaluationError, Task, known, only, share

CATEGORIES = ("random", "popular", "adversarial")
YES, NO, OTHER = "yes", "no", "other"
PICTURES = "val2014"
LLAVA_QUESTIONS = "llava_pope_test.jsonl"
DENIALS = {"No", "no", "not"}


def is_yes_or_no(answer: str) -> str:
    """The published copy of lmms-eval: nothing else may stand in an answer."""
    said = answer.strip().lower()
    return said if said in (YES, NO) else OTHER


def denies_somewhere(answer: str) -> str:
    """LLaVA's script: a word of denial in the first sentence is no, everything else is yes."""
    sentence = answer.strip().split(".")[0].replace(",", "")
    return NO if DENIALS & set(sentence.split(" ")) else YES


LMMS_RULE = "is yes or no"
RULES: dict[str, Callable[[str], str]] = {LMMS_RULE: is_yes_or_no, "yes or no somewhere": denies_somewhere}


class Pope(Task):
    """See the module."""

    files = "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json beside val2014/"
    columns = ("question", "answer", "image_source", "image", "category")
    truths = (("category", str), ("label", str))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        own = {category: find_file(folder, f"coco_pope_{category}.json") for category in CATEGORIES}
        if any(own.values()):
            yield from self._own(folder, own)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], self.columns):
                category, source, question, label = texts(
                    row, ("category", "image_source", "question", "answer"), folder
                )
                yield self._item(category, Path(source).stem, question, label, pictures["image"], folder)
        else:
            raise no_data(self, folder)

    def _own(self, folder: Path, own: Mapping[str, Path | None]) -> Iterator[Item]:
        keys: dict[tuple[str, str, str], str] = {}
        for category, path in own.items():
            if path is None:
                raise EvaluationError(f"{folder} has no coco_pope_{category}.json, expected it beside the others")
            for row in rows_with(read_json_file(path), ("image", "text", "label"), path):
                image, question, label = texts(row, ("image", "text", "label"), path)
                key = category, image, question.strip()
                if key in keys:
                    raise EvaluationError(f"{path} asks {key[2]!r} of {image} twice: download it again")
                keys[key] = label
        if self.settings.preset == LLAVA and (path := find_file(folder, LLAVA_QUESTIONS)):
            keys = self._asked(path, keys)
        val2014 = find_file(folder, PICTURES) or folder / PICTURES
        for (category, image, question), label in keys.items():
            yield self._item(category, Path(image).stem, question, label, find_picture(val2014, image), folder)

    def _asked(self, path: Path, keys: Mapping[tuple[str, str, str], str]) -> dict[tuple[str, str, str], str]:
        """The keys of LLaVA's own questions, in its order."""
        asked = {}
        for row in rows_with(read_json_file(path), ("image", "text", "category"), path):
            category, image, text = texts(row, ("category", "image", "text"), path)
            key = category, image, text.removesuffix(self.settings.after).strip()
            if key not in keys:
                raise EvaluationError(
                    f"{path} asks {key[2]!r} of {image}, which coco_pope_{category}.json does not have: that is "
                    "another version of POPE; take the files that belong together"
                )
            asked[key] = keys[key]
        return asked

    def _item(self, category: str, source: str, question: str, label: str, picture: Picture, where: Path) -> Item:
        label = label.strip().lower()
        if category not in CATEGORIES or label not in (YES, NO):
            raise EvaluationError(f"{where}: category {category!r} and answer {label!r}, expected one of POPE's")
        name = f"{category}/{source}/{question.strip()}"
        prompt = f"{self.settings.before}{question.strip()}{self.settings.after}"
        truth = {"category": category, "label": label}
        return Item(name, prompt, (picture,), truth, name, source)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        one = only(group)
        category, label = known(one, "category", CATEGORIES), known(one, "label", (YES, NO))
        said = RULES[self.settings.scorer](one.answer)
        return Scored((one,), {f"{category}: {label}, said {said}": 1.0}, float(said == label), said=said)

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Of all questions together, and F1 of each category.

        `yes ratio` is of the labels in lmms-eval, of the answers in LLaVA's script.
        """
        asked = {one: self._count(sums, (one,), (YES, NO), (YES, NO, OTHER)) for one in CATEGORIES}
        everything = sum(asked.values())
        right = sum(self._count(sums, CATEGORIES, (label,), (label,)) for label in (YES, NO))
        f1 = {one: self._f1(sums, (one,))[2] for one in CATEGORIES}
        present = sum(1 * (number > 0) for number in asked.values())
        precision, recall, pooled = self._f1(sums, CATEGORIES)
        ratio = ((YES,), (YES, NO, OTHER)) if self.settings.scorer == LMMS_RULE else ((YES, NO), (YES,))
        return {
            "accuracy": share(right, everything),
            "precision": precision,
            "recall": recall,
            "f1": pooled,
            **{f"f1, {one}": figure for one, figure in f1.items()},
            "mean f1": sum(f1.values()) / (present + (present == 0)),
            "yes ratio": share(self._count(sums, CATEGORIES, *ratio), everything),
        }

    def _count(
        self, sums: Mapping[str, Any], categories: Sequence[str], labels: Sequence[str], answers: Sequence[str]
    ) -> Any:
        return sum(sums[f"{one}: {label}, said {said}"] for one in categories for label in labels for said in answers)

    def _f1(self, sums: Mapping[str, Any], categories: Sequence[str]) -> tuple[Any, Any, Any]:
        """(precision, recall, F1); an answer that is neither yes nor no is missing from all three, as published."""
        found = self._count(sums, categories, (YES,), (YES,))
        precision = share(found, self._count(sums, categories, (YES, NO), (YES,)))
        recall = share(found, self._count(sums, categories, (YES,), (YES, NO)))
        return precision, recall, 2 * precision * recall / (precision + recall + (precision + recall == 0))
