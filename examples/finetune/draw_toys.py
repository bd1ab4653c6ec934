"""Draw a small task that FlashSloth-Nano cannot do: the catalogue of a toy shop, with pictures and a table of answers.

    python examples/finetune/draw_toys.py toys          # toys/pictures/*.png and toys/answers.csv

A toy is a shape in a colour, drawn with Pillow. Nano knows four of the shapes and all of the colours, but no moon, and
nothing of this shop: a toy's shelf has the letter of its shape and the number of its colour. Some toys (a shape in a
colour) are kept out of the table for the end: they are in `new_toys.csv`, which nothing is trained on.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = {"red": (214, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 210), "yellow": (240, 205, 40)}
SHELF_OF_SHAPE = {"circle": "A", "square": "B", "triangle": "C", "star": "D", "moon": "E"}
SHELF_OF_COLOR = {"red": 1, "green": 2, "blue": 3, "yellow": 4}
NEVER_IN_THE_TABLE = {("moon", "green"), ("star", "blue"), ("square", "yellow")}
WHAT, WHERE = "What is it?", "Which shelf?"
SIDE, FINE = 160, 4
"""Pixels of a picture's side, and how many times finer it is drawn before it is made smaller."""
SIZES, TINTS = (0.24, 0.36), (215, 255)
"""A toy's radius as a share of the side, and the lightest and darkest background."""

Draw = Callable[[ImageDraw.ImageDraw, float, float, float, tuple[int, int, int], tuple[int, int, int]], None]


def polygon(corners: int, inner: float = 1.0, turn: float = -math.pi / 2) -> Draw:
    """A regular polygon, or with an inner radius a star."""

    def draw(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple, ground: tuple) -> None:
        steps = corners if inner == 1.0 else 2 * corners
        radii = [radius if step % 2 == 0 or inner == 1.0 else radius * inner for step in range(steps)]
        angles = [turn + 2 * math.pi * step / steps for step in range(steps)]
        points = [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
        pen.polygon(points, fill=color)

    return draw


def circle(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple, ground: tuple) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def moon(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: tuple, ground: tuple) -> None:
    """A disc, bitten."""
    circle(pen, x, y, radius, color, ground)
    circle(pen, x + 0.55 * radius, y - 0.2 * radius, 0.85 * radius, ground, ground)


SHAPES: dict[str, Draw] = {
    "circle": circle,
    "square": polygon(4, turn=-math.pi / 4),
    "triangle": polygon(3),
    "star": polygon(5, inner=0.45),
    "moon": moon,
}


def draw_toy(shape: str, color: str, luck: random.Random) -> Image.Image:
    """One toy somewhere on a light ground."""
    tint = luck.randint(*TINTS)
    ground = (tint, tint, max(0, tint - luck.randint(0, 20)))
    side = SIDE * FINE
    radius = side * luck.uniform(*SIZES)
    x, y = (luck.uniform(radius, side - radius) for _ in range(2))
    picture = Image.new("RGB", (side, side), ground)
    SHAPES[shape](ImageDraw.Draw(picture), x, y, radius, COLORS[color], ground)
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def answers(shape: str, color: str) -> dict[str, str]:
    """What the shop says of a toy."""
    return {WHAT: f"a {color} {shape}", WHERE: f"{SHELF_OF_SHAPE[shape]}{SHELF_OF_COLOR[color]}"}


def write_table(folder: Path, name: str, toys: list[tuple[str, str]], luck: random.Random) -> None:
    """Draw toys and write a row for each question about each."""
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "question", "answer"))
        for number, (shape, color) in enumerate(toys):
            picture = f"{name}-{number:04d}.png"
            draw_toy(shape, color, luck).save(folder / "pictures" / picture)
            table.writerows((picture, question, answer) for question, answer in answers(shape, color).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=400, help="toys in the table")
    parser.add_argument("--new", type=int, default=30, help="toys kept out of it")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    (given.folder / "pictures").mkdir(parents=True, exist_ok=True)
    luck = random.Random(given.seed)
    everything = [(shape, color) for shape in SHAPES for color in COLORS]
    known = [toy for toy in everything if toy not in NEVER_IN_THE_TABLE]
    write_table(given.folder, "answers", [known[n % len(known)] for n in range(given.count)], luck)
    new = sorted(NEVER_IN_THE_TABLE)
    write_table(given.folder, "new_toys", [new[n % len(new)] for n in range(given.new)], luck)


if __name__ == "__main__":
    main()
