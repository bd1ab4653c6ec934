"""ScienceQA: 2,017 questions of school science that come with a picture, with two to five options.

Lu et al., "Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question Answering" (2022); its test
split. The hub's files have no ids, so an item's is made of what is asked and shown.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import (
    find_file,
    find_picture,
    no_data,
    parquet_files,
    parquet_rows,
    picture_digest,
    read_json_file,
    rows_with,
    texts,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, known, only, share

PROBLEMS, SPLITS, LLAVA_QUESTIONS = "problems.json", "pid_splits.json", "llava_test_CQM-A.json"
PICTURES = ("images/test", "test")
LETTERS = tuple(string.ascii_uppercase)
IMAGE, TEXT = KINDS = ("image", "text")
PICTURE_LINE = "<image>\n"
"""What a question with a picture begins with in LLaVA's file."""


def is_letter(answer: str, truth: str) -> bool:
    """The published copy of lmms-eval: nothing else may stand in an answer; "b" counts and "B." does not.

    It would take "B. ..." too, if it did not ask for an upper-case letter after making all lower case.
    """
    return answer.strip().lower() == truth.lower()


def begins_with_letter(answer: str, truth: str) -> bool:
    """lmms-eval 0.7.3, and on its answers LLaVA's script: "B." and "B. text" count too, "b. text" does not."""
    said = answer.strip()
    return is_letter(said, truth) or said.startswith(f"{truth}.")


RULES: dict[str, Callable[[str, str], bool]] = {
    "is the letter": is_letter,
    "begins with the letter": begins_with_letter,
}


class ScienceQa(Task):
    """See the module."""

    files = f"{PROBLEMS} and {SPLITS} (or {LLAVA_QUESTIONS}) beside {PICTURES[0]}/<id>/image.png"
    columns = ("question", "choices", "answer", "hint", "image")
    truths = (("answer", str), ("type", str))
    scorers = tuple(RULES)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        times: Counter[str] = Counter()
        for asked, answer, picture in self._rows(folder):
            shown = picture_digest(picture)
            name = blake2b(f"{asked}\n{shown}".encode(), digest_size=8).hexdigest()
            times[name] += 1
            if times[name] > 1:
                name = f"{name}#{times[name]}"
            prompt = f"{self.settings.before}{asked}{self.settings.after}"
            yield Item(name, prompt, (picture,), {"answer": answer, "type": IMAGE}, name, shown)

    def _rows(self, folder: Path) -> Iterator[tuple[str, str, Picture]]:
        """(what is asked, the right letter, the picture) of each question with a picture."""
        if path := find_file(folder, PROBLEMS):
            yield from self._problems(folder, path)
        elif path := find_file(folder, LLAVA_QUESTIONS):
            yield from self._llava(folder, path)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], self.columns[:-1]):
                if "image" in pictures:  # in ScienceQA-FULL half have none
                    yield *ask(row, folder), pictures["image"]
        else:
            raise no_data(self, folder)

    def _problems(self, folder: Path, path: Path) -> Iterator[tuple[str, str, Picture]]:
        splits = find_file(folder, SPLITS)
        if splits is None:
            raise EvaluationError(f"{path} has no {SPLITS} beside it, which says what its test split is")
        problems, ids = read_json_file(path), read_json_file(splits)
        names = ids.get(self.settings.split) if isinstance(ids, dict) else None
        if not isinstance(problems, dict) or not isinstance(names, list):
            raise EvaluationError(f"{path} and {splits} do not hold questions and a split {self.settings.split!r}")
        for name in names:
            row = problems.get(name) if isinstance(name, str) else None
            if not isinstance(row, dict):
                raise EvaluationError(f"{path} has no question {name!r}, which {splits} names")
            if row.get("image"):
                pictures = self._pictures(folder, path) / name
                yield *ask(row, path), find_picture(pictures, *texts(row, ["image"], path))

    def _llava(self, folder: Path, path: Path) -> Iterator[tuple[str, str, Picture]]:
        for row in rows_with(read_json_file(path), ("id", "conversations"), path):
            if not row.get("image"):
                continue
            turns = rows_with(row["conversations"], ("from", "value"), path)
            said = [texts(turn, ["value"], path)[0] for turn in turns]
            if len(said) != 2 or said[1] not in LETTERS:
                raise EvaluationError(
                    f"{path}: question {row['id']} has the turns {said!r:.80}, expected it and a letter"
                )
            picture = find_picture(self._pictures(folder, path), *texts(row, ["image"], path))
            yield said[0].removeprefix(PICTURE_LINE).removesuffix(PICTURE_LINE.strip()).strip(), said[1], picture

    def _pictures(self, folder: Path, questions: Path) -> Path:
        """The folder of pictures, in the data's folder or beside the questions."""
        places = [place / name for place in (folder, questions.parent) for name in PICTURES]
        return next((place for place in places if place.is_dir()), places[0])

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        one = only(group)
        truth, kind = known(one, "answer", LETTERS), known(one, "type", KINDS)
        is_right = float(RULES[self.settings.scorer](one.answer, truth))
        return Scored((one,), {f"{kind}: right": is_right, f"{kind}: asked": 1.0}, is_right, said=one.answer.strip())

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent, of questions with a picture; where an answers' file has others, of all."""
        right, asked = (sum(sums[f"{kind}: {what}"] for kind in KINDS) for what in ("right", "asked"))
        return {IMAGE: share(sums[f"{IMAGE}: right"], sums[f"{IMAGE}: asked"]), "all": share(right, asked)}


def ask(row: Mapping[str, Any], where: Path) -> tuple[str, str]:
    """(what is asked, the right letter) of a question as ScienceQA stores it.

    Raises:
        EvaluationError: where it is not stored so.
    """
    question, hint = texts(row, ("question", "hint"), where)
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise EvaluationError(f"{where}: choices is {choices!r:.80}, expected a list of texts")
    if not isinstance(answer, int) or not 0 <= answer < len(choices) <= len(LETTERS):
        raise EvaluationError(f"{where}: answer is {answer!r}, expected a number from 0 to {len(choices) - 1}")
    context = f"Context: {hint}\n" if hint else ""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False))
    return f"{context}{question}\n{options}", LETTERS[answer]
