"""TextVQA: 5,000 questions about words in pictures, each answered by ten people.

Singh et al., "Towards VQA Models That Can Read" (2019); its validation split. LLaVA's prompt holds the words that an
OCR system found in the picture, lmms-eval's does not; the paper's figure is likely LLaVA's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from flashsloth.evaluation.task import EvaluationError, Task, only, share
from flashsloth.evaluation.text_answers import vqa_accuracy, vqa_text

QUESTIONS, PICTURES = "TextVQA_0.5.1_val.json", "train_images"
OCR = "TextVQA_Rosetta_OCR_v0.2_val.json"
LLAVA_QUESTIONS = "llava_textvqa_val_v051_ocr.jsonl"
REFERENCE = "\nReference OCR token: "
WITH_TOKENS = {"question": False, "question and OCR tokens": True}
"""Of the styles of its prompts."""
PEOPLE = 10


class TextVqa(Task):
    """See the module."""

    files = f"{QUESTIONS} beside {PICTURES}/; for preset llava with {OCR} or {LLAVA_QUESTIONS}"
    columns = ("question_id", "image_id", "question", "answers", "image")
    truths = (("answers", list),)
    scorers = ("VQA accuracy",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        is_with_tokens = WITH_TOKENS[self.settings.style]
        if path := find_file(folder, QUESTIONS):
            tokens = self._tokens(folder) if is_with_tokens else {}
            images = find_file(folder, PICTURES) or folder / PICTURES
            for row in rows_in_data(path, ("question_id", "image_id", "question", "answers")):
                [name] = texts(row, ["image_id"], path)
                yield self._item(row, tokens.get(name), find_picture(images, name), path)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], (*self.columns, "ocr_tokens")):
                yield self._item(row, row.get("ocr_tokens"), pictures["image"], folder)
        else:
            raise no_data(self, folder)

    def _tokens(self, folder: Path) -> dict[str, Any]:
        """Words in each picture, by its id."""
        if path := find_file(folder, OCR):
            found = rows_in_data(path, ("image_id", "ocr_tokens"))
            return {texts(row, ["image_id"], path)[0]: row["ocr_tokens"] for row in found}
        if path := find_file(folder, LLAVA_QUESTIONS):
            rows = rows_with(read_json_file(path), ("question_id", "text"), path)
            asked = [texts(row, ("question_id", "text"), path) for row in rows]
            if lacking := [name for name, text in asked if REFERENCE not in text]:
                raise EvaluationError(f"{path}: the question about {lacking[0]} has no {REFERENCE.strip()!r}")
            return {
                name: [text.partition(REFERENCE)[2].removesuffix(self.settings.after)]  # they are joined already
                for name, text in asked
            }
        raise EvaluationError(f"{folder} has neither {OCR} nor {LLAVA_QUESTIONS}, which preset llava's prompts need")

    def _item(self, row: Mapping[str, Any], tokens: Any, picture: Picture, where: Path) -> Item:
        source, question = texts(row, ("image_id", "question"), where)
        answers = row["answers"]
        if not are_answers(answers):
            raise EvaluationError(
                f"{where}: question {row['question_id']} has the answers {answers!r:.80}, expected {PEOPLE} texts: "
                "is it the validation split?"
            )
        reference = ""
        if WITH_TOKENS[self.settings.style]:
            if not isinstance(tokens, list) or not all(isinstance(one, str) for one in tokens):
                raise EvaluationError(f"{where}: there are no OCR tokens of picture {source}, which the prompt needs")
            reference = REFERENCE + ", ".join(tokens)
        prompt = f"{self.settings.before}{question.capitalize()}{reference}{self.settings.after}"
        name = id_of(row, "question_id", where)
        return Item(name, prompt, (picture,), {"answers": answers}, name, source)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`."""
        one = only(group)
        if not are_answers(one.truth["answers"]):
            raise EvaluationError(f"the truth of {one.id!r} is not the answers of {PEOPLE} people")
        value = vqa_accuracy(one.answer, one.truth["answers"])
        return Scored((one,), {"right": value, "asked": 1.0}, value, said=vqa_text(one.answer))

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent."""
        return {"accuracy": share(sums["right"], sums["asked"])}


def are_answers(found: Any) -> bool:
    """Whether they are texts, of as many people as were asked."""
    return isinstance(found, list) and len(found) == PEOPLE and all(isinstance(one, str) for one in found)


def rows_in_data(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The rows under `data` of one of TextVQA's files."""
    content = read_json_file(path)
    if not isinstance(content, dict) or "data" not in content:
        raise EvaluationError(f"{path} has no list `data`: is it TextVQA's file?")
    return rows_with(content["data"], keys, path)
