"""Draw docs/figures/world.png: pictures of the drawn world, each with one of its questions.

python docs/figures/world.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from flashsloth.world import World

COLUMNS, ROWS = 6, 2
CELL, TEXT_HEIGHT, MARGIN = 200, 74, 10
SEED = 5


def main() -> None:
    world = World(seed=SEED, split="test", level=3)
    sheet = Image.new("RGB", (COLUMNS * CELL, ROWS * (CELL + TEXT_HEIGHT)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index in range(COLUMNS * ROWS):
        sample = world.sample(index)
        x, y = index % COLUMNS * CELL, index // COLUMNS * (CELL + TEXT_HEIGHT)
        picture = sample.image.copy()
        picture.thumbnail((CELL - MARGIN, CELL - MARGIN))
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        pen.rectangle((x + 3, y + 3, x + CELL - 4, y + CELL - 4), outline="#d5d8dc")
        asked = next((question for question in sample.questions if question.kind != "choice"), sample.questions[0])
        lines = textwrap.wrap(asked.question, 31)[:3]
        pen.text((x + 8, y + CELL), "\n".join(lines), fill="#22313f", font=font)
        pen.text((x + 8, y + CELL + 15 * len(lines)), asked.answer, fill="#c0392b", font=font)
    sheet.save(Path(__file__).with_name("world.png"))


if __name__ == "__main__":
    main()
