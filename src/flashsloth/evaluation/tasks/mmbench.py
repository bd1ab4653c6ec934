"""MMBench: questions with two to four options, each asked with its options turned round, right only if always right.

Liu et al., "MMBench: Is Your Multi-modal Model an All-around Player?" (2023); its English dev split. Rules look for
the letter or the option that an answer names. Where they find none a judge is asked, as published; published code
draws at random where the judge fails, here the question stays unjudged. Published code also takes the "nan" that stands
in place of a missing option for its text, and finds it in "banana"; that is not repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashsloth.evaluation.data_files import id_of, no_data, parquet_files, parquet_rows, picture_digest, texts
from flashsloth.evaluation.item import Item, Prediction, Scored
from flashsloth.evaluation.task import EvaluationError, JudgeRequest, Task, known, share
from flashsloth.evaluation.tsv_file import tsv_rows

LETTERS, NONE_OF_THEM = "ABCD", "E"
TURNED = 1_000_000
"""Added to a question's index once for each turn."""
COLUMNS = ("index", "question", "hint", "answer", *LETTERS)
MAY_BE_EMPTY = ("hint", *LETTERS)
MISSING = {"", "nan"}
"""What stands where there is no hint or option."""
WRAPPINGS = (
    ("", ""), ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."), (":", ""), (":", ","),
    (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip
"""What may stand round a letter that is an answer, in the order they are tried."""
ARTICLE, SHORT_ANSWER = "A", 3
"""In an answer of more words than this, a bare A may be an article."""
JUDGE_TOKENS = 256
JUDGE_PROMPT = (
    "You are an AI assistant who will help me to match an answer with several options of a single-choice question. "
    "You are provided with a question, several options, and an answer, and you need to find which option is most "
    "similar to the answer. If the meaning of all options are significantly different from the answer, output E. "
    "Your should output a single uppercase character in A, B, C, D (if they are valid options), and E. \n"
    "Example 1: \n"
    "Question: What is the main object in image?\nOptions: A. teddy bear B. rabbit C. cat D. dog\n"
    "Answer: a cute teddy bear\nYour output: A\n"
    "Example 2: \n"
    "Question: What is the main object in image?\nOptions: A. teddy bear B. rabbit C. cat D. dog\n"
    "Answer: Spider\nYour output: E\n"
    "Example 3: \n"
    "Question: {}?\nOptions: {}\nAnswer: {}\nYour output: "
)
"""The published one, word for word."""


def several_options(hint: str, question: str, options: Mapping[str, str]) -> str:
    """lmms-eval's way to ask."""
    listed = "".join(f"\n{letter}. {text}" for letter, text in options.items())
    return f"{hint} {question}".strip() + f" There are several options:{listed}\n"


def a_line_each(hint: str, question: str, options: Mapping[str, str]) -> str:
    """LLaVA's way."""
    return "\n".join([*([hint] if hint else []), question, *(f"{letter}. {text}" for letter, text in options.items())])


STYLES: dict[str, Callable[[str, str, Mapping[str, str]], str]] = {
    "several options": several_options,
    "a line each": a_line_each,
}


def stated_letter(answer: str) -> str | None:
    """The one letter that stands in an answer as a word of its own."""
    words = answer.split()
    for before, after in WRAPPINGS:
        found = [letter for letter in LETTERS + NONE_OF_THEM if f"{before}{letter}{after}" in words]
        is_unsure = not before + after and ARTICLE in words and len(words) > SHORT_ANSWER
        if len(found) == 1 and not is_unsure:
            return found[0]
    return None


def named_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose text stands in an answer."""
    found = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None


def read_judgement(reply: str) -> str | None:
    """A judge's letter, if it replied with nothing else."""
    letter = reply.strip().removesuffix(".")
    return letter if letter in (*LETTERS, NONE_OF_THEM) else None


class MmBench(Task):
    """See the module."""

    files = "mmbench_dev_20230712.tsv or another dev split's .tsv, with the pictures in it"
    columns = (*COLUMNS, "image")
    truths = (("answer", str), ("options", dict), ("question", str))
    scorers = ("circular",)

    def read(self, folder: Path) -> Iterator[Item]:
        """See :class:`Task`."""
        turned = 0
        for row, picture in self._rows(folder):
            item = self._item(row, picture, folder)
            turned += item.id != item.group
            yield item
        if not turned:
            raise EvaluationError(f"{folder} has no turned questions (index from {TURNED:,}), which MMBench counts by")

    def _rows(self, folder: Path) -> Iterator[tuple[dict[str, Any], Callable[[], bytes]]]:
        if path := find_tsv(folder):
            yield from tsv_rows(path, COLUMNS)
        elif files := parquet_files(folder, self.columns, self.settings.split, self.settings.config):
            for row, pictures in parquet_rows(files, ["image"], COLUMNS):
                shown = pictures["image"]
                assert callable(shown)
                empty = {name: "" for name in MAY_BE_EMPTY if row[name] is None}
                yield {**row, **empty}, shown
        else:
            raise no_data(self, folder)

    def _item(self, row: dict[str, Any], picture: Callable[[], bytes], folder: Path) -> Item:
        question, hint, answer, *values = texts(row, COLUMNS[1:], folder)
        options = {letter: text for letter, text in zip(LETTERS, values, strict=True) if text not in MISSING}
        if answer not in options:
            raise EvaluationError(
                f"{folder}: question {row['index']} has the answer {answer!r}, expected one of {', '.join(options)}: "
                "is it the dev split?"
            )
        name = id_of(row, "index", folder)
        if not name.isdecimal():
            raise EvaluationError(f"{folder}: index is {name!r:.80}, expected a whole number")
        index = int(name)
        asked = STYLES[self.settings.style]("" if hint in MISSING else hint, question, options)
        prompt = f"{self.settings.before}{asked}{self.settings.after}"
        truth = {"answer": answer, "options": options, "question": question}
        return Item(str(index), prompt, (picture,), truth, str(index % TURNED), picture_digest(picture))

    def judge_request(self, prediction: Prediction) -> JudgeRequest | None:
        """See :class:`Task`."""
        answer, options = prediction.answer.strip(), prediction.truth["options"]
        if stated_letter(answer) or named_option(answer, options):
            return None
        listed = "There are several options: \n" + "".join(f"{letter}. {text}\n" for letter, text in options.items())
        text = JUDGE_PROMPT.format(prediction.truth["question"], listed, answer)
        return JudgeRequest(text, JUDGE_TOKENS, 0.0, read_judgement)

    def score(self, group: Sequence[Prediction]) -> Scored:
        """See :class:`Task`; a turn that rules find wrong decides, whatever a judge would say of the others."""
        said = []
        for one in group:
            options = one.truth["options"]
            known(one, "answer", tuple(options))
            if not all(isinstance(text, str) for text in options.values()):
                raise EvaluationError(f"the truth of {one.id!r} has options that are not all texts")
            found = stated_letter(one.answer) or named_option(one.answer.strip(), options)
            said.append(found or (one.judgements[0] if one.judgements else None))
        is_right = [
            None if what is None else what == one.truth["answer"] for one, what in zip(group, said, strict=True)
        ]
        best = self._counts([one is not False for one in is_right])
        worst = self._counts([one is True for one in is_right])
        is_decided = best["circular"] == worst["circular"]
        shown = ", ".join(what or "?" for what in said)
        value = worst["circular"] if is_decided else None
        return Scored(tuple(group), worst, value, None if is_decided else best, None if is_decided else worst, shown)

    def _counts(self, is_right: Sequence[bool]) -> dict[str, float]:
        return {"circular": float(all(is_right)), "groups": 1.0, "turns": sum(is_right), "asked": len(is_right)}

    def total(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Percent of questions that are right in every turn, and of single turns."""
        return {
            "circular": share(sums["circular"], sums["groups"]),
            "single turns": share(sums["turns"], sums["asked"]),
        }


def find_tsv(folder: Path) -> Path | None:
    """The table of a folder, by its name where there are several.

    Raises:
        EvaluationError: where the names do not tell.
    """
    found = sorted(folder.glob("*.tsv"))
    named = [path for path in found if "dev" in path.name.lower() and "cn" not in path.name.lower()]
    found = named or found
    if len(found) > 1:
        raise EvaluationError(f"{folder} has {found[0].name} and {found[1].name}: leave the one to take")
    return found[0] if found else None
