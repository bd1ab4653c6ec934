"""Count a model's right answers to a table of pictures, questions and answers.

    python examples/finetune/count_right.py toys/new_toys.csv toys/pictures                     # FlashSloth-Nano
    python examples/finetune/count_right.py toys/new_toys.csv toys/pictures my-toy-sloth --show 6

An answer is right if it is the table's, letter for letter.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

import flashsloth
from flashsloth.training.data.answer_table import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("model", nargs="?", help="a checkpoint or an adapter; without it, the small model")
    parser.add_argument("--show", type=int, default=0, help="answers to print, from the table's beginning")
    given = parser.parse_args()
    disable_progress_bar()
    sloth = flashsloth.load(given.model)
    rows = read_table(given.table)
    answers = sloth.answer_batch([(given.pictures / row.image, row.question) for row in rows])
    for row, answer in list(zip(rows, answers, strict=True))[: given.show]:
        mark = "" if answer == row.answer else f"      (the table says {row.answer})"
        print(f"{row.image}  {row.question}  {answer}{mark}")
    asked = Counter(row.question for row in rows)
    right = Counter(row.question for row, answer in zip(rows, answers, strict=True) if answer == row.answer)
    for question, count in asked.items():
        print(f"{question}  {right[question]} of {count} right")


if __name__ == "__main__":
    main()
