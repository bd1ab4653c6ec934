"""SEED-Bench: questions with four options about pictures; those about videos are not asked.

Li et al., "SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension" (2023): 14,233 of its 17,990
questions. One id, 49914, is there twice, and both count, as in lmms-eval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import (
    find_file,
    find_picture,
    id_of,
    no_data,
    parquet_files,
    parquet_rows,
    read_json_file,
    rows_with,
    texts,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, known, only, share

QUESTIONS, PICTURES = "SEED-Bench.json", "SEED-Bench-image"
LETTERS = tuple("ABCD")
CHOICES = tuple(f"choice_{letter.lower()}" for letter in LETTERS)
KEYS = ("question", *CHOICES, "answer", "data_id", "data_type")
IMAGE, VIDEO = KINDS = ("image", "video")


def first_character(answer: str) -> str:
    """lmms-eval: whatever an answer begins with, in upper case."""
    return answer.strip()[:1].upper()


RULES: dict[str, Callable[[str], str]] = {"first character": first_character}


class SeedBench(Task):
    """See the module."""

    files = f"{QUESTIONS} beside {PICTURES}/"
    columns = ("question_id", *KEYS, "image")
    truths = (("answer", str), ("type", str))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        times: Counter[str] = Counter()
        for row, find in self._rows(folder):
            question, *choices, answer, picture, kind = texts(row, KEYS, folder)
            if kind not in KINDS:
                raise EvaluationError(f"{folder}: data_type is {kind!r:.80}, expected {' or '.join(KINDS)}")
            if kind == VIDEO:
                continue
            if answer not in LETTERS:
                raise EvaluationError(
                    f"{folder}: question {row['question_id']} has the answer {answer!r}, not a letter"
                )
            name = id_of(row, "question_id", folder)
            times[name] += 1
            if times[name] > 1:
                name = f"{name}#{times[name]}"
            options = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True))
            prompt = f"{self.settings.before}{question}{options}{self.settings.after}"
            yield Item(name, prompt, (find(),), {"answer": answer, "type": IMAGE}, name, picture)

    def _rows(self, folder: Path) -> Iterator[tuple[dict[str, Any], Callable[[], Picture]]]:
        """(row, what finds its picture)."""
        if path := find_file(folder, QUESTIONS):
            content = read_json_file(path)
            if not isinstance(content, dict) or "questions" not in content:
                raise EvaluationError(f"{path} has no list `questions`: is it SEED-Bench's file?")
            pictures = find_file(folder, PICTURES) or folder / PICTURES
            for row in rows_with(content["questions"], ("question_id", *KEYS), path):
                yield row, lambda row=row: find_picture(pictures, row["data_id"])  # type: ignore[misc]
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, shown in parquet_rows(files, ["image"], self.columns[:-1]):
                yield row, lambda shown=shown: shown["image"]  # type: ignore[misc]
        else:
            raise no_data(self, folder)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        one = only(group)
        said = RULES[self.settings.scorer](one.answer)
        is_right, kind = float(said == known(one, "answer", LETTERS)), known(one, "type", KINDS)
        return Scored((one,), {f"{kind}: right": is_right, f"{kind}: asked": 1.0}, is_right, said=said)

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent, of questions about pictures; where an answers' file has others, of those and of all."""
        right = {kind: sums[f"{kind}: right"] for kind in KINDS}
        asked = {kind: sums[f"{kind}: asked"] for kind in KINDS}
        figures = {kind: share(right[kind], asked[kind]) for kind in KINDS}
        return {**figures, "all": share(sum(right.values()), sum(asked.values()))}
