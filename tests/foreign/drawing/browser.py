"""Foreign pictures made by a browser: SVG, CSS boxes, headings, buttons, gradients; screenshots by Chromium.

In: plans. Out: a PNG each.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from outlines import corners, placed
from PIL import Image
from plans import DARK_GROUNDS, SIDE, Bars, Item, Plan

WINDOW = 700
"""px, larger than any picture: the screenshot is cut to the plan's size."""
FONTS = ("Liberation Serif", "Liberation Sans", "DejaVu Sans", "Liberation Mono", "DejaVu Serif")
OVAL, OBLONG = 0.62, 0.6
"""Height over width of an oval, and of a rectangle."""
CLIPPED = ("triangle", "star", "hexagon", "diamond", "pentagon", "heart", "cross")
ROUNDED = 6


def draw(plan: Plan, path: Path) -> None:
    """Take a screenshot of the plan's page."""
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        page.write_text(_page(plan), encoding="utf-8")
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--force-device-scale-factor=1", f"--window-size={WINDOW},{WINDOW}", f"--user-data-dir={folder}/profile",
             f"--screenshot={shot}", page.as_uri()],
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        with Image.open(shot) as picture:
            picture.convert("RGB").crop((0, 0, *plan.size)).save(path, optimize=True)


def _page(plan: Plan) -> str:
    width, height = plan.size
    ink = "white" if plan.ground in DARK_GROUNDS else "black"
    frame = f"position:relative;overflow:hidden;width:{width}px;height:{height}px;background:{plan.ground};color:{ink};"
    if plan.items:
        body = _svg(plan) if plan.style == "svg" else "".join(_box(plan, item) for item in plan.items)
    elif plan.lines:
        body, frame = (
            _text(plan),
            frame + "display:flex;flex-direction:column;justify-content:space-evenly;align-items:center;",
        )
    elif plan.bars is not None:
        body = _css_bars(plan.bars, plan.size) if plan.style == "css" else _svg_bars(plan.bars, plan.size)
    else:
        body, frame = _nothing(plan), frame
    return f'<!doctype html><meta charset="utf-8"><body style="margin:0"><div style="{frame}">{body}</div></body>'


def _place(plan: Plan, item: Item) -> tuple[float, float, float]:
    """Centre and radius of an item, in px."""
    cell_width, cell_height = plan.size[0] / SIDE, plan.size[1] / SIDE
    radius = item.size * min(cell_width, cell_height) / 2
    return (item.column + 0.5) * cell_width, (item.row + 0.5) * cell_height, radius


def _svg(plan: Plan) -> str:
    shapes = []
    for item in plan.items:
        x, y, r = _place(plan, item)
        if item.shape == "circle":
            shapes.append(f'<circle cx="{x}" cy="{y}" r="{r}" fill="{item.code}"/>')
        elif item.shape == "oval":
            shapes.append(f'<ellipse cx="{x}" cy="{y}" rx="{r}" ry="{r * OVAL}" fill="{item.code}"/>')
        elif item.shape in ("square", "rectangle"):
            half = r * (OBLONG if item.shape == "rectangle" else 0.85)
            wide = r if item.shape == "rectangle" else half
            shapes.append(
                f'<rect x="{x - wide}" y="{y - half}" width="{2 * wide}" height="{2 * half}" fill="{item.code}"/>'
            )
        else:
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed(item.shape, (x, y), r))
            shapes.append(f'<polygon points="{points}" fill="{item.code}"/>')
    return f'<svg width="{plan.size[0]}" height="{plan.size[1]}">{"".join(shapes)}</svg>'


def _box(plan: Plan, item: Item) -> str:
    """An item as one element, cut to its shape by CSS."""
    x, y, r = _place(plan, item)
    half = {"oval": r * OVAL, "rectangle": r * OBLONG, "square": r * 0.85}.get(item.shape, r)
    wide = half if item.shape == "square" else r
    style = f"position:absolute;left:{x - wide}px;top:{y - half}px;width:{2 * wide}px;height:{2 * half}px;"
    style += f"background:{item.code};"
    if item.shape in ("circle", "oval"):
        style += "border-radius:50%;"
    elif item.shape in CLIPPED:
        points = ",".join(f"{50 + 50 * a:.1f}% {50 + 50 * b:.1f}%" for a, b in corners(item.shape))
        style += f"clip-path:polygon({points});"
    else:
        style += "box-shadow:2px 2px 4px rgba(0,0,0,.35);"
    return f'<div style="{style}"></div>'


def _text(plan: Plan) -> str:
    rng = plan.stream
    longest = max(len(line.text) for line in plan.lines)
    size = min(plan.size[1] * 0.5 / len(plan.lines), plan.size[0] * 1.2 / longest)
    parts = []
    for line in plan.lines:
        font = f"font:{rng.choice(('bold ', ''))}{size:.0f}px '{rng.choice(FONTS)}'"
        if plan.style == "button":
            parts.append(
                f'<button style="{font};color:{line.code};padding:4px 14px;border:2px solid #888;'
                f'background:{plan.ground};border-radius:{ROUNDED}px">{line.text}</button>'
            )
        elif plan.style == "svg":
            parts.append(
                f'<svg width="{plan.size[0]}" height="{size * 1.3:.0f}"><text x="50%" y="{size:.0f}" '
                f'text-anchor="middle" fill="{line.code}" style="{font}">{line.text}</text></svg>'
            )
        else:
            parts.append(f'<h1 style="{font};margin:0;color:{line.code}">{line.text}</h1>')
    return "".join(parts)


def _css_bars(bars: Bars, size: tuple[int, int]) -> str:
    top = max(bars.values)
    columns = []
    for label, value in zip(bars.labels, bars.values, strict=True):
        number = value if bars.numbered else ""
        name = f'<div style="font:20px DejaVu Sans;padding:4px;min-width:48px">{label}</div>'
        note = f'<div style="font:20px DejaVu Sans;padding:4px">{number}</div>'
        if bars.horizontal:
            bar = f'<div style="width:{0.68 * size[0] * value / top}px;height:30px;background:{bars.code}"></div>'
            columns.append(f'<div style="display:flex;align-items:center">{name}{bar}{note}</div>')
        else:
            bar = f'<div style="height:{0.68 * size[1] * value / top}px;width:46px;background:{bars.code}"></div>'
            columns.append(
                f'<div style="display:flex;flex-direction:column;align-items:center">{note}{bar}{name}</div>'
            )
    flow = "column;align-items:flex-start" if bars.horizontal else "row;align-items:flex-end"
    style = f"display:flex;flex-direction:{flow};justify-content:space-evenly;height:{size[1] - 8}px;text-align:center"
    return f'<div style="{style}">{"".join(columns)}</div>'


def _svg_bars(bars: Bars, size: tuple[int, int]) -> str:
    """Upright or lying bars along an axis, in plain SVG."""
    width, height = size
    step = (height - 60 if bars.horizontal else width - 60) / len(bars.labels)
    top, parts = max(bars.values), []
    for number, (label, value) in enumerate(zip(bars.labels, bars.values, strict=True)):
        along = 40 + step * (number + 0.5)
        note = value if bars.numbered else ""
        if bars.horizontal:
            length = (width - 130) * value / top
            parts.append(
                f'<rect x="70" y="{along - step * 0.35}" width="{length}" height="{step * 0.7}" fill="{bars.code}"/>'
            )
            parts.append(f'<text x="62" y="{along + 7}" text-anchor="end">{label}</text>')
            parts.append(f'<text x="{78 + length}" y="{along + 7}">{note}</text>')
        else:
            length, floor = (height - 90) * value / top, height - 40
            place = f'x="{along - step * 0.35}" y="{floor - length}" width="{step * 0.7}" height="{length}"'
            parts.append(f'<rect {place} fill="{bars.code}"/>')
            parts.append(f'<text x="{along}" y="{height - 14}" text-anchor="middle">{label}</text>')
            parts.append(f'<text x="{along}" y="{floor - length - 6}" text-anchor="middle">{note}</text>')
    axis = f"M70 20 V{height - 14}" if bars.horizontal else f"M34 {height - 40} H{width - 14}"
    style = "font:20px Liberation Sans"
    line = f'<path d="{axis}" stroke="black"/>'
    return f'<svg width="{width}" height="{height}" style="{style}">{line}{"".join(parts)}</svg>'


def _nothing(plan: Plan) -> str:
    """A whole page of gradient, clouds or stripes."""
    rng = plan.stream
    first, second, third = (
        f"hsl({rng.randrange(360)} {rng.randrange(30, 80)}% {rng.randrange(30, 75)}%)" for _ in range(3)
    )
    grounds = {
        "linear": f"linear-gradient({rng.randrange(360)}deg,{first},{second},{third})",
        "conic": f"conic-gradient({first},{second},{third},{first})",
        "radial": f"radial-gradient(at 20% 0%,{first},{second},{third})",
        "stripes": f"repeating-linear-gradient({rng.randrange(20, 70)}deg,{first} 0 9px,{second} 9px 18px)",
        "blank": first,
    }
    if plan.style == "turbulence":
        clouds = f'<feTurbulence type="fractalNoise" baseFrequency="0.015" numOctaves="4" seed="{rng.randrange(99)}"/>'
        whole = 'width="100%" height="100%"'
        return f'<svg {whole}><filter id="f">{clouds}</filter><rect {whole} filter="url(#f)"/></svg>'
    return f'<div style="width:100%;height:100%;background:{grounds[plan.style]}"></div>'
