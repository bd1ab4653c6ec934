"""Foreign pictures made by ImageMagick: its primitives, its fonts, its plasma and noise.

In: plans. Out: a PNG each.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from outlines import placed
from plans import SIDE, Item, Plan

FONTS = ("DejaVu-Sans", "DejaVu-Serif", "Liberation-Sans-Bold", "Liberation-Serif", "DejaVu-Sans-Bold")
PROGRAMS = ("convert-im6.q16", "magick", "convert")
"""Names of ImageMagick's program, the surest first."""


def program() -> str:
    """ImageMagick, as it is called here.

    Raises:
        FileNotFoundError: if there is none.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(f"none of {PROGRAMS} is installed: install ImageMagick")


def draw(plan: Plan, path: Path) -> None:
    """Run ImageMagick for the plan's picture."""
    canvas = ["-size", f"{plan.size[0]}x{plan.size[1]}", f"xc:{plan.ground}"]
    if plan.items:
        arguments = [*canvas, *_items(plan)]
    elif plan.lines:
        arguments = _lines(plan, canvas)
    else:
        arguments = _nothing(plan)
    colors = [
        "-depth",
        "8",
        *(["-colors", "255"] if not plan.items else []),
        f"PNG8:{path}" if not plan.items else f"PNG24:{path}",
    ]
    subprocess.run([program(), *arguments, "-strip", *colors], check=True, capture_output=True, timeout=600)


def _items(plan: Plan) -> list[str]:
    arguments: list[str] = []
    if plan.style == "stroked":
        arguments += ["-stroke", "#333333", "-strokewidth", "2"]
    for item in plan.items:
        arguments += ["-fill", item.code, "-draw", _primitive(plan, item)]
    return [*arguments, "-blur", "0x0.8"] if plan.style == "blurred" else arguments


def _primitive(plan: Plan, item: Item) -> str:
    width, height = plan.size[0] / SIDE, plan.size[1] / SIDE
    x, y = (item.column + 0.5) * width, (item.row + 0.5) * height
    r = item.size * min(width, height) / 2
    if item.shape == "circle":
        return f"circle {x},{y} {x},{y - r}"
    if item.shape == "oval":
        return f"ellipse {x},{y} {r},{0.6 * r} 0,360"
    if item.shape == "square":
        return f"rectangle {x - 0.85 * r},{y - 0.85 * r} {x + 0.85 * r},{y + 0.85 * r}"
    if item.shape == "rectangle":
        return f"rectangle {x - r},{y - 0.55 * r} {x + r},{y + 0.55 * r}"
    return "polygon " + " ".join(f"{a:.1f},{b:.1f}" for a, b in placed(item.shape, (x, y), r))


def _lines(plan: Plan, canvas: list[str]) -> list[str]:
    rng = plan.stream
    if plan.style == "label" and len(plan.lines) == 1:
        line = plan.lines[0]
        size = f"{plan.size[0] - 40}x{plan.size[1] - 60}"
        text = ["-background", plan.ground, "-fill", line.code, "-font", rng.choice(FONTS), "-size", size]
        return [*text, "-gravity", "center", f"label:{line.text}", "-extent", f"{plan.size[0]}x{plan.size[1]}"]
    longest = max(len(line.text) for line in plan.lines)
    size = min(plan.size[1] * 0.45 / len(plan.lines), plan.size[0] * 1.1 / longest)
    arguments = [*canvas, "-gravity", "center"]
    for number, line in enumerate(plan.lines):
        shift = round((number + 0.5 - len(plan.lines) / 2) * plan.size[1] / len(plan.lines))
        font = ["-font", rng.choice(FONTS), "-pointsize", f"{size:.0f}", "-fill", line.code]
        arguments += [*font, "-annotate", f"+0{shift:+d}", line.text]
    return arguments


def _nothing(plan: Plan) -> list[str]:
    rng = plan.stream
    size = ["-seed", str(rng.randrange(1000)), "-size", f"{plan.size[0]}x{plan.size[1]}"]
    first, second = (f"#{rng.randrange(0x303030, 0xE0E0E0):06x}" for _ in range(2))
    if plan.style == "plasma":
        return [*size, "plasma:fractal", "-blur", "0x2"]
    if plan.style == "noise":
        return [*size, f"xc:{first}", "+noise", "Gaussian", "-blur", "0x1", "-colors", "32"]
    if plan.style == "gradient":
        return [*size, f"gradient:{first}-{second}", "-rotate", "0"]
    return [*size, "plasma:tomato-steelblue", "-swirl", "160", "-blur", "0x1"]
