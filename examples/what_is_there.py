"""Ask the small model of every picture in examples/ which shapes are there, all at once, and show how sure it is.

python examples/what_is_there.py
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

import flashsloth

PICTURES = sorted(Path(__file__).parent.glob("*.png"))
SHAPES = ("circle", "square", "rectangle", "triangle", "star", "hexagon")
SURE = 0.5


def main() -> None:
    disable_progress_bar()  # the weights are read in a blink
    sloth = flashsloth.load()
    pairs = [(picture, f"Is there a {shape}?") for picture in PICTURES for shape in SHAPES]
    answers = iter(sloth.answer_batch(pairs, choices=["yes", "no"]))
    table = Table("picture", *SHAPES, title="How likely the small model holds it that there is a ...")
    for picture in PICTURES:
        likely = [next(answers).choices["yes"] for _ in SHAPES]
        table.add_row(picture.name, *(f"[{'bold green' if one > SURE else 'dim'}]{one:.0%}[/]" for one in likely))
    Console().print(table)


if __name__ == "__main__":
    main()
