"""POPE's own files with pictures drawn for the purpose: for tests that run a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

CATEGORIES = ("random", "popular", "adversarial")
COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
SIDE = 64


def draw_pope(folder: Path, pictures: int = 4) -> Path:
    """Pictures of one circle each, and a question about each in each category."""
    shown = folder / "val2014"
    shown.mkdir(parents=True)
    for number in range(pictures):
        drawn = Image.new("RGB", (SIDE, SIDE), "white")
        place = 8 + 4 * number
        ImageDraw.Draw(drawn).ellipse((place, place, place + 24, place + 24), fill=COLOURS[number % len(COLOURS)])
        drawn.save(shown / f"COCO_val2014_{number:012}.jpg")
    for category, asked in zip(CATEGORIES, ("circle", "square", "star"), strict=True):
        rows = [
            {
                "question_id": number + 1,
                "image": f"COCO_val2014_{number:012}.jpg",
                "text": f"Is there a {asked} in the image?",
                "label": "yes" if asked == "circle" else "no",
            }
            for number in range(pictures)
        ]
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"coco_pope_{category}.json").write_text(lines + "\n", encoding="utf-8")
    return folder
