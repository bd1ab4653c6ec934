"""Draw docs/figures/floors.png: the folders of the package as floors, each of which imports only what stands below it.

    python docs/figures/floors.py

The order is that of the contract in pyproject.toml, the words are the first lines of the packages' docstrings.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "flashsloth"
INK, SOFT = "#22313f", "#7f8c8d"
DOORS, ANSWERS, STUDY, MODEL, GROUND = "#cfe3f5", "#f6d8ae", "#dbe9d8", "#e3d7f0", "#e8ecef"
COLORS = {
    **dict.fromkeys(("cli", "serving"), DOORS),
    **dict.fromkeys(("inference", "evaluation", "export"), ANSWERS),
    **dict.fromkeys(("ablation", "benchmark", "training", "planning", "world"), STUDY),
    **dict.fromkeys(("checkpoint", "kernels", "model"), MODEL),
}
HEIGHT, GAP, WIDTH = 0.62, 0.14, 12.6


def floors() -> list[tuple[str, str, int]]:
    """Name, purpose and number of files of each floor, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    names = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    found = []
    for name in names:
        folder = PACKAGE / name
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        lines = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        found.append((name, " ".join(lines.split()), len(list(folder.rglob("*.py"))) if folder.is_dir() else 1))
    return found


def main() -> None:
    """Draw and save."""
    all_floors = floors()
    figure = Figure(figsize=(WIDTH, 0.6 + len(all_floors) * (HEIGHT + GAP) * 0.72))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(0, WIDTH), ylim=(-0.1, len(all_floors) * (HEIGHT + GAP)))
    axes.axis("off")
    for number, (name, purpose, files) in enumerate(reversed(all_floors)):
        y = number * (HEIGHT + GAP)
        color = COLORS.get(name, GROUND)
        box = FancyBboxPatch(
            (0.1, y), WIDTH - 0.2, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1", fc=color, ec=INK, lw=1
        )
        axes.add_patch(box)
        where = f"{name}/" if files > 1 else f"{name}.py"
        axes.text(0.3, y + HEIGHT / 2, where, va="center", fontsize=11, color=INK, weight="bold")
        axes.text(1.75, y + HEIGHT / 2, purpose, va="center", fontsize=9.5, color=INK)
        count = f"{files} files" if files > 1 else ""
        axes.text(WIDTH - 0.3, y + HEIGHT / 2, count, va="center", ha="right", fontsize=9, color=SOFT)
    figure.savefig(ROOT / "docs" / "figures" / "floors.png", dpi=110)


if __name__ == "__main__":
    main()
