"""DocVQA: 5,349 questions about 1,286 pages of scanned documents, each with every answer that counts.

Mathew et al., "DocVQA: A Dataset for VQA on Document Images" (2021); its validation split.
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
    value_of,
)
from flashsloth.evaluation.edit_distance import anls
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, Task, only, share

OWN_FILE, PICTURES = "val_v1.0_withQT.json", "spdocvqa_images"
COLUMNS = ("questionId", "question", "ucsf_document_id", "ucsf_document_page_no", "answers", "data_split")
SPLIT = "val"


class DocVqa(Task):
    """See the module."""

    files = f"{OWN_FILE} beside {PICTURES}/"
    columns = (*COLUMNS, "image")
    truths = (("answers", list),)
    scorers = ("ANLS 0.5",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        if path := find_file(folder, OWN_FILE):
            found = read_json_file(path)
            rows = found.get("data") if isinstance(found, dict) else None
            shown = find_file(folder, PICTURES) or path.parent / PICTURES
            for row in rows_with(rows, ("questionId", "question", "image", "answers"), path):
                [name] = texts(row, ("image",), path)
                yield self._item(row, find_picture(shown, Path(name).name), path)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], COLUMNS):
                if row["data_split"] == SPLIT:
                    yield self._item(row, pictures["image"], folder)
        else:
            raise no_data(self, folder)

    def _item(self, row: dict[str, Any], picture: Picture, where: Path) -> Item:
        name, [question] = id_of(row, "questionId", where), texts(row, ("question",), where)
        answers = value_of(row, "answers", list, where)
        if not answers or not all(isinstance(one, str) for one in answers):
            raise EvaluationError(f"{where}: question {name} has answers {answers!r:.80}, expected texts")
        prompt = f"{self.settings.before}{question}{self.settings.after}"
        page = f"{row.get('ucsf_document_id')}_{row.get('ucsf_document_page_no')}"
        return Item(name, prompt, (picture,), {"answers": answers}, name, page)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :func:`flashsloth.evaluation.edit_distance.anls`."""
        one = only(group)
        truths = one.truth["answers"]
        if not truths or not all(isinstance(truth, str) for truth in truths):
            raise EvaluationError(f"the truth of {one.id!r} is {truths!r:.80}, expected texts")
        nearness = anls(one.answer, truths)
        return Scored((one,), {"nearness": nearness, "asked": 1.0}, nearness, said=f"{nearness:.2f}")

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """The mean nearness, in percent."""
        return {"anls": share(sums["nearness"], sums["asked"])}
