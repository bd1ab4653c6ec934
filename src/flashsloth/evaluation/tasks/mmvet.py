"""MM-Vet: 218 questions that need several abilities at once, answered in free text and graded by a judge.

Yu et al., "MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities" (2023). The judge is asked as the
publishers ask it (github.com/yuweihao/MM-Vet, mm-vet_evaluator.py): a table of seven graded rows, then one without its
grade. lmms-eval's prompt lacks its last space and has another heading, VLMEvalKit's wraps the lines: grades by those
are others. Where the judge replies with anything but a grade, the publishers ask again in other words and then count 0;
here the answer stays unjudged.

An answer stands in that table as it is, so that a line break or a bar in it can forge a row: such answers are counted
as `could forge a row`, and the score is told without them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
    texts,
    value_of,
)
from flashsloth.evaluation.item import Item, Picture, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, JudgeRequest, Task, only, share

ABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
GRADE = re.compile(r"0?\.\d+|[01]|0\.|1\.0*")
GRADE_TOKENS = 3
TABLE = (
    "Compare the ground truth and prediction from AI models, to give a correctness score for the prediction. <AND> "
    "in the ground truth means it is totally right only when all elements in the ground truth are present in the "
    "prediction, and <OR> means it is totally right when any one element in the ground truth is present in the "
    "prediction. The correctness score is 0.0 (totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 "
    "(totally right). Just complete the last space of the correctness score.\n"
    "\n"
    "Question | Ground truth | Prediction | Correctness\n"
    "--- | --- | --- | ---\n"
    "What is x in the equation? | -1 <AND> -5 | x = 3 | 0.0\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -5 or 5 | 0.5\n"
    "What is x in the equation? | -1 <AND> -5 | x = -1 or x = -5 | 1.0\n"
    "Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and "
    "Greenland are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while "
    "Greenland is mostly covered in ice and snow. The meme is saying that the person has trust issues because the "
    "names of these countries do not accurately represent their landscapes. | The meme talks about Iceland and "
    "Greenland. It's pointing out that despite their names, Iceland is not very icy and Greenland isn't very "
    "green. | 0.4\n"
    "Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and "
    "Greenland are misleading. Despite its name, Iceland is known for its beautiful green landscapes, while "
    "Greenland is mostly covered in ice and snow. The meme is saying that the person has trust issues because the "
    "names of these countries do not accurately represent their landscapes. | The meme is using humor to point out "
    "the misleading nature of Iceland's and Greenland's names. Iceland, despite its name, has lush green "
    "landscapes while Greenland is mostly covered in ice and snow. The text 'This is why I have trust issues' is a "
    "playful way to suggest that these contradictions can lead to distrust or confusion. The humor in this meme is "
    "derived from the unexpected contrast between the names of the countries and their actual physical "
    "characteristics. | 1.0\n"
)


def read_grade(reply: str) -> str | None:
    """A grade from 0 to 1, if the reply is nothing else."""
    return reply.strip() if GRADE.fullmatch(reply.strip()) else None


def could_forge(answer: str) -> bool:
    """Whether an answer can look like more than one cell of a table."""
    return "\n" in answer or "|" in answer


class MmVet(Task):
    """See the module."""

    files = "mm-vet.json beside images/"
    columns = ("question_id", "image", "question", "answer", "capability")
    truths = (("question", str), ("answer", str), ("abilities", list))
    scorers = ("graded 0 to 1",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        if path := find_file(folder, "mm-vet.json"):
            rows = read_json_file(path)
            if not isinstance(rows, dict):
                raise EvaluationError(
                    f"{path} holds {type(rows).__name__}, expected an object of questions by their ids"
                )
            for name in rows:
                row = value_of(rows, name, dict, path)
                question, answer, shown = texts(row, ("question", "answer", "imagename"), path)
                picture = find_picture(path.parent / "images", shown)
                yield self._item(name, question, answer, value_of(row, "capability", list, path), picture)
        elif files := parquet_files(folder, self.columns, self.settings.split):
            for row, pictures in parquet_rows(files, ["image"], self.columns):
                name, question, answer, abilities = texts(
                    row, ("question_id", "question", "answer", "capability"), folder
                )
                yield self._item(name, question, answer, abilities.split(","), pictures["image"])
        else:
            raise no_data(self, folder)

    def _item(self, name: str, question: str, answer: str, abilities: Sequence[str], picture: Picture) -> Item:
        truth = {"question": question, "answer": answer, "abilities": sorted(abilities)}
        prompt = f"{self.settings.before}{question}{self.settings.after}"
        return Item(name, prompt, (picture,), truth, name, picture_digest(picture))

    def judge_request(self, prediction: Prediction) -> JudgeRequest:
        """See :class:`Task`."""
        question, answer = prediction.truth["question"], prediction.truth["answer"]
        answer = answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        row = " | ".join([question, answer, prediction.answer, ""])
        return JudgeRequest(f"{TABLE}\n{row}", GRADE_TOKENS, 0.0, read_grade)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """The mean of an answer's grades."""
        one = only(group)
        grades = [_grade(one, said) for said in one.judgements]
        if not grades:
            worst = self._counts(one, 0.0)
            return Scored((one,), worst, None, self._counts(one, 1.0), worst, "not judged")
        mean = sum(grades) / len(grades)
        return Scored((one,), self._counts(one, mean), mean, said=", ".join(one.judgements))

    def _counts(self, one: Prediction, grade: float) -> dict[str, float]:
        kinds = ["all", *one.truth["abilities"]]
        kinds.append("could forge a row" if could_forge(one.answer) else "others")
        return {f"{kind}, {what}": by for kind in kinds for what, by in (("grades", grade), ("answers", 1.0))}

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent of the grades there could be: of all answers, of each ability, of those that cannot forge a row."""

        def mean(kind: str) -> Any:
            return share(sums[f"{kind}, grades"], sums[f"{kind}, answers"])

        return {
            "total": mean("all"),
            **{ability: mean(ability) for ability in ABILITIES},
            "could forge a row": share(sums["could forge a row, answers"], sums["all, answers"]),
            "total without those": mean("others"),
        }


def _grade(one: Prediction, said: str) -> float:
    if read_grade(said) is None:
        raise EvaluationError(f"{one.id!r} was judged {said!r:.80}, expected a grade from 0 to 1: ask the judge again")
    return float(said)
