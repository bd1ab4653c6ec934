"""Ask the small model about the pictures in examples/, and say how long each answer took.

make demo        or, where flashsloth is installed:        python examples/demo.py
"""

from __future__ import annotations

import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

import flashsloth

HERE = Path(__file__).parent


def main() -> None:
    disable_progress_bar()  # the weights are read in a blink
    console = Console()
    questions = yaml.safe_load((HERE / "questions.yaml").read_text(encoding="utf-8"))
    start = time.perf_counter()
    model = flashsloth.load()
    model.answer(HERE / next(iter(questions)), "What is this?", max_tokens=1)  # the first call warms the caches
    console.print(f"loaded FlashSloth-Nano in {time.perf_counter() - start:.1f} s")
    table = Table("picture", "question", "answer", "a person says", "time", title="FlashSloth-Nano on this machine")
    for name, asked in questions.items():
        for item in asked:
            start = time.perf_counter()
            answer = model.answer(HERE / name, item["question"])
            seconds = time.perf_counter() - start
            right = answer.lower() == item["answer"].lower()
            style = "green" if right else "red"
            table.add_row(name, item["question"], f"[{style}]{answer}[/]", item["answer"], f"{1000 * seconds:.0f} ms")
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
