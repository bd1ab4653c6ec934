"""GQA: 12,578 questions about 398 pictures, each answered by a word or two.

Hudson and Manning, "GQA: A New Dataset for Real-World Visual Reasoning" (2019); its balanced testdev split.
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
    texts,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, only, share
from flashsloth.evaluation.text_answers import bare_text

QUESTIONS, PICTURES = "testdev_balanced_questions.json", "images"
PICTURES_CONFIG = "testdev_balanced_images"
"""Where the hub has the pictures, with the columns `id` and `image`."""
KEYS = ("imageId", "question", "answer")


def is_exact(answer: str, truth: str) -> bool:
    """lmms-eval's exact match: case and punctuation do not count."""
    return bare_text(answer.strip()) == bare_text(truth)


def is_equal(answer: str, truth: str) -> bool:
    """GQA's own script, after LLaVA's conversion: full stops at the end and case do not count."""
    return answer.strip().rstrip(".").lower() == truth


RULES: dict[str, Callable[[str, str], bool]] = {"exact match": is_exact, "GQA's own": is_equal}


class Gqa(Task):
    """See the module."""

    files = f"{QUESTIONS} beside {PICTURES}/"
    columns = ("id", *KEYS)
    truths = (("answer", str),)
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        if path := find_file(folder, QUESTIONS):
            rows = read_json_file(path)
            if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
                raise EvaluationError(f"{path} is not an object of questions by their ids: is it the right file?")
            images = find_file(folder, PICTURES) or folder / PICTURES
            for name, row in rows.items():
                picture, question, answer = texts(row, KEYS, path)
                yield self._item(name, picture, question, answer, find_picture(images, picture))
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            shown = self._pictures(folder)
            for row, _ in parquet_rows(files, [], self.columns):
                name, picture, question, answer = texts(row, self.columns, folder)
                if picture not in shown:
                    raise EvaluationError(f"{folder} has no picture {picture}, expected it in {PICTURES_CONFIG}")
                yield self._item(name, picture, question, answer, shown[picture])
        else:
            raise no_data(self, folder)

    def _pictures(self, folder: Path) -> dict[str, Picture]:
        files = parquet_files(folder, ("id", "image"), self.settings.split, PICTURES_CONFIG)
        return {texts(row, ["id"], folder)[0]: shown["image"] for row, shown in parquet_rows(files, ["image"], ["id"])}

    def _item(self, name: str, picture: str, question: str, answer: str, shown: Picture) -> Item:
        prompt = f"{self.settings.before}{question}{self.settings.after}"
        return Item(name, prompt, (shown,), {"answer": answer}, name, picture)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        one = only(group)
        is_right = float(RULES[self.settings.scorer](one.answer, one.truth["answer"]))
        return Scored((one,), {"right": is_right, "asked": 1.0}, is_right, said=one.answer.strip())

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent that are right."""
        return {"exact_match": share(sums["right"], sums["asked"])}
