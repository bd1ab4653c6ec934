"""Draw the foreign pictures again and write their questions.

    python tests/foreign/drawing/make.py           # all of them
    python tests/foreign/drawing/make.py browser   # one tool's; the questions' file is written whole

Needs Chromium, ImageMagick 6 and matplotlib (which versions drew what is kept stands in README.md). The questions
follow from the plans, so pictures and questions can only change together.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from asking import questions_of
from plans import TOOLS, Plan, all_plans

HERE = Path(__file__).resolve().parent.parent
QUESTIONS = HERE / "questions.yaml"
HEADER = (
    "# Written by drawing/make.py: pictures that no code of the drawn world made, and what a person would answer.\n"
)


def draw(plan: Plan) -> None:
    """One picture, by its tool."""
    import browser
    import magick
    import plots

    tools = {"browser": browser.draw, "matplotlib": plots.draw, "imagemagick": magick.draw}
    folder = HERE / plan.tool
    folder.mkdir(exist_ok=True)
    tools[plan.tool](plan, folder / f"{plan.name}.png")


def main(wanted: list[str]) -> None:
    """Draw, then write the questions of all plans."""
    asked: dict[str, Any] = {}
    for plan in all_plans():
        if plan.tool in wanted:
            draw(plan)
            print(plan.tool, plan.name, plan.style, flush=True)
        asked[f"{plan.tool}/{plan.name}.png"] = questions_of(plan)
    text = yaml.safe_dump(asked, sort_keys=False, allow_unicode=True, width=120)
    QUESTIONS.write_text(HEADER + text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or list(TOOLS))
