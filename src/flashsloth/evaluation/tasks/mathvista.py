"""MathVista: 1,000 questions of mathematics about figures, charts and photographs; numbers, lists or options.

Lu et al., "MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts" (2024); its testmini
split. Rules extract an answer where they can, a judge where they cannot; then it must be equal to the truth. The judge
is asked as the publishers and lmms-eval ask it, with five worked examples and the publishers' wording of the question.
The paper does not say which of lmms-eval's three prompts it used: `style` is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    value_of,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.mathvista_answers import CHOICE, comparable, of_2023, stated_answer, today
from flashsloth.evaluation.mathvista_prompts import HINTS, STYLES, asked_kind, hub_query, judge_prompt
from flashsloth.evaluation.task import EvaluationError, JudgeRequest, Task, only, share

COLUMNS = ("pid", "question", "answer", "choices", "unit", "precision", "question_type", "answer_type", "metadata")
OWN_FILES = ("annot_testmini.json", "testmini.json")
RULES = {"extracted, then equal": today, "extracted, then equal; whole numbers as in 2023": of_2023}
EXTRACTION_TOKENS = 256
MOST_CHARACTERS = 16 * EXTRACTION_TOKENS
"""Of an extraction; what is longer was not limited as it was asked to be."""


def read_extraction(reply: str) -> str | None:
    """What a judge extracted: any text."""
    return reply.strip() if 0 < len(reply.strip()) <= MOST_CHARACTERS else None


class MathVista(Task):
    """See the module."""

    files = "annot_testmini.json beside images/"
    columns = (*COLUMNS, "decoded_image")
    truths = (
        ("answer", str), ("query", str), ("choices", list), ("question_type", str), ("answer_type", str),
    )  # fmt: skip
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        path = next((found for name in OWN_FILES if (found := find_file(folder, name))), None)
        if path is not None:
            rows = read_json_file(path)
            if not isinstance(rows, dict):
                raise EvaluationError(
                    f"{path} holds {type(rows).__name__}, expected an object of questions by their pids"
                )
            for name in rows:
                row = value_of(rows, name, dict, path)
                [shown] = texts(row, ("image",), path)
                yield self._item({**row, "pid": name}, find_picture(path.parent, shown), path)
        elif files := parquet_files(folder, self.columns, self.settings.split):
            for row, pictures in parquet_rows(files, ["decoded_image"], COLUMNS):
                if value_of(row, "metadata", dict, folder).get("split") == self.settings.split:
                    yield self._item(row, pictures["decoded_image"], folder)
        else:
            raise no_data(self, folder)

    def _item(self, row: Mapping[str, Any], picture: Picture, where: Path) -> Item:
        name, question, answer, question_type, answer_type = texts(
            dict(row), ("pid", "question", "answer", "question_type", "answer_type"), where
        )
        precision = row.get("precision")
        truth = {
            "answer": answer,
            "choices": value_of(row, "choices", list, where) if row.get("choices") else [],
            "question_type": question_type,
            "answer_type": answer_type,
            "precision": int(precision) if precision in (1, 2) else None,  # the hub has 1.0
        }
        _check(truth, f"{where}: question {name}")
        if row.get("unit"):
            question += f" (Unit: {row['unit']})"
        truth["query"] = hub_query(question, truth)
        asked = STYLES[self.settings.style](question, truth).strip()
        return Item(name, f"{self.settings.before}{asked}{self.settings.after}", (picture,), truth, name, name)

    def judge_request(self, prediction: Prediction) -> JudgeRequest | None:
        """See :class:`Task`."""
        if stated_answer(prediction.answer, prediction.truth) is not None:
            return None
        text = judge_prompt(prediction.truth["query"], prediction.answer.strip())
        return JudgeRequest(text, EXTRACTION_TOKENS, 0.0, read_extraction)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """What a judge extracted counts before what rules do, where both did."""
        one = only(group)
        _check(one.truth, f"the truth of {one.id!r}")
        said = one.judgements[0] if one.judgements else stated_answer(one.answer, one.truth)
        wrong, right = {"right": 0.0, "asked": 1.0}, {"right": 1.0, "asked": 1.0}
        if said is None:
            return Scored((one,), wrong, None, right, wrong, "not judged")
        found = comparable(said, one.truth, RULES[self.settings.scorer])
        is_right = found is not None and found.strip() == one.truth["answer"].strip()
        return Scored((one,), right if is_right else wrong, float(is_right), said=str(found))

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent."""
        return {"accuracy": share(sums["right"], sums["asked"])}


def _check(truth: Mapping[str, Any], where: str) -> None:
    """Refuse a truth of no kind that MathVista has."""
    choices = truth["choices"]
    is_choice = truth["question_type"] == CHOICE
    if asked_kind(truth) not in HINTS or is_choice != bool(choices) or not all(isinstance(one, str) for one in choices):
        raise EvaluationError(f"{where} is {truth!r:.120}, expected one of MathVista's kinds")
