"""One sample on a terminal: its text in colours with a legend; without colours, a line for every run of tokens.

In: the runs of `training/inspect_data.py`. Out: text on stdout.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from flashsloth.cli.terminal import harmless, stdout
from flashsloth.training.inspect_data import MEANINGS, PICTURE, PROMPT, QUERIES, QUESTION, SUPERVISED, Run

STYLES = {
    PROMPT: "dim",
    PICTURE: "black on yellow",
    QUESTION: "bold cyan",
    QUERIES: "black on magenta",
    SUPERVISED: "bold green underline",
}
MISTAKE = "bold white on red"
"""The style of tokens that are two things at once."""


def print_sample(where: str, layout: str, sizes: list[tuple[int, int]], runs: list[Run]) -> None:
    """Print a sample: where it is from, what it was read as, its pictures' sizes (width, height), its tokens."""
    console = stdout()
    shown = ", ".join(f"{width}×{height}" for width, height in sizes) or "none"
    learned = sum(run.stop - run.start for run in runs if SUPERVISED in run.roles)
    console.print(Text(harmless(where), style="bold"), soft_wrap=True)
    console.print(
        f"{runs[-1].stop} tokens, {learned} of them supervised; pictures: {shown}; read as {layout}", soft_wrap=True
    )
    console.print()
    if console.is_terminal and not console.no_color:
        _print_colours(console, runs)
    else:
        _print_lines(console, runs)


def _print_colours(console: Console, runs: list[Run]) -> None:
    """The text as it stands, and what its colours mean."""
    text = Text()
    for run in runs:
        written = run.text.replace("\n", "↵\n") if run.text else f"[{run.name} ×{run.stop - run.start}]"
        text.append(harmless(written), MISTAKE if len(run.roles) > 1 else STYLES[run.roles[0]])
    console.print(text, soft_wrap=True)
    console.print()
    counts = _counts(runs)
    for role, meaning in MEANINGS.items():
        console.print(Text(f" {role} ", STYLES[role]) + Text(f" {counts[role]} tokens: {meaning}"), soft_wrap=True)
    if any(len(run.roles) > 1 for run in runs):
        console.print(Text(" two at once ", MISTAKE) + Text(" a wrong mask: please report it"), soft_wrap=True)


def _print_lines(console: Console, runs: list[Run]) -> None:
    """A line a run: positions, what it is, how many tokens, its text."""
    width = max(len(run.name) for run in runs)
    for run in runs:
        mark = "!" if len(run.roles) > 1 else "*" if SUPERVISED in run.roles else " "
        written = repr(harmless(run.text)) if run.text else ""
        span = f"{run.start}-{run.stop - 1}"
        line = f"{mark} {span:>11}  {run.name:<{width}}  {run.stop - run.start:>5}  {written}"
        console.print(line.rstrip(), markup=False, soft_wrap=True)
    console.print()
    counts = _counts(runs)
    console.print("  positions, what they are, how many tokens, their text; * the loss stands here; ! a wrong mask")
    for role, meaning in MEANINGS.items():
        console.print(f"  {role:<10}  {counts[role]:>5}  {meaning}", soft_wrap=True)


def _counts(runs: list[Run]) -> dict[str, int]:
    """Tokens of each role."""
    return {role: sum(run.stop - run.start for run in runs if role in run.roles) for role in MEANINGS}
