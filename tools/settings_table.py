"""The table of the benchmarks' settings, as docs/evaluation-settings.md has it: made from what the runner reads.

In: nothing. Out: Markdown. `python tools/settings_table.py > docs/evaluation-settings.md` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from flashsloth.evaluation.setting_words import COMPARED, in_words
from flashsloth.evaluation.settings import (
    LLAVA,
    LMMS,
    LMMS_OWNER,
    PAPER,
    SOURCES,
    TABLE,
    SettingsError,
    TaskSettings,
    settings_of,
)
from flashsloth.evaluation.tasks import CLASSES

HEADING = f"""# Settings of the benchmarks

Made from `evaluation/settings.py` and the tasks by `python tools/settings_table.py`; how to run them is told in
[evaluation](evaluation.md). These are the settings of preset `{PAPER}`: {SOURCES[PAPER]}.
Figures are the paper's, table 1. A half width is that of the 95 % interval at the paper's score, in points: a smaller
difference is not to be seen."""
UNSAID = "–"


def settings_tables() -> str:
    """All of them."""
    parts = [
        HEADING,
        _table(
            (
                "task",
                "paper",
                "HD",
                "half width",
                "questions",
                "new tokens",
                "temperature",
                "what is right",
                "judge",
                "score",
            ),
            map(_figures, TABLE),
        ),
        "New tokens that are not set are the published adapter's default.",
        "## Prompts",
        "What stands before and after a question, word for word; a question's options are part of it.",
        _table(("task", "before", "after", "wording"), map(_prompts, TABLE)),
        "## Data",
        "The hub's data set, configuration and split; the publishers' files, which are found by their names; and else\n"
        "the columns by which any Parquet file is known.",
        _table(("task", "on the hub", "publishers' files", "columns"), map(_data, TABLE)),
        "## What the other presets have otherwise",
        f"`{LMMS}` is {SOURCES[LMMS]}, where `lmms-lab/` became `{LMMS_OWNER}`; `{LLAVA}` is {SOURCES[LLAVA]},\n"
        "LLaVA's scripts for five of these benchmarks.",
        _table(("task", "setting", PAPER, "there", "preset"), _others()),
        "## What the paper does not say",
        _table(("task", "not known"), ((_task(row), one) for row in TABLE for one in row.not_known)),
        "## In lmms-eval",
        "The names by which lmms-eval knows a benchmark and its score.",
        _table(("task", "there", "its score"), map(_names, TABLE)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(titles)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _task(row: TaskSettings) -> str:
    return f"`{row.task}`"


def _figures(row: TaskSettings) -> list[str]:
    width = UNSAID if row.half_width is None else f"{row.half_width:.1f}"
    counted = f"{row.size:,}" + (f" in {row.groups:,} groups" if row.groups else "")
    return [
        _task(row), f"{row.paper:g}", f"{row.paper_hd:g}", width, counted, in_words("max_tokens", row.max_tokens),
        f"{row.temperature:g}", row.scorer, row.judge or UNSAID, row.metric,
    ]  # fmt: skip


def _prompts(row: TaskSettings) -> list[str]:
    after = _code(row.after) + (f"; without options {_code(row.after_open)}" if row.after_open else "")
    return [_task(row), _code(row.before), after, row.style or UNSAID]


def _code(text: str | None) -> str:
    return "`" + text.replace("\n", "\\n") + "`" if text else UNSAID


def _data(row: TaskSettings) -> list[str]:
    task = CLASSES[row.task]
    place = ", ".join(one for one in (row.dataset, row.config, row.split) if one)
    return [_task(row), place, task.files.replace("<", "&lt;") or UNSAID, ", ".join(f"`{one}`" for one in task.columns)]


def _others() -> Iterator[list[str]]:
    for preset in (LMMS, LLAVA):
        for row in TABLE:
            try:
                other = settings_of(row.task, preset)
            except SettingsError:
                continue
            for name, words in {"size": "questions", **COMPARED}.items():
                here, there = getattr(row, name), getattr(other, name)
                if here != there and name != "dataset":
                    yield [_task(row), words, in_words(name, here), in_words(name, there), preset]


def _names(row: TaskSettings) -> list[str]:
    metrics = " + ".join(f"`{one}`" for one in row.lmms_metrics)
    today = settings_of(row.task, LMMS).lmms_metrics
    renamed = "" if today == row.lmms_metrics else f" (0.7.3: {' + '.join(f'`{one}`' for one in today)})"
    return [_task(row), f"`{row.lmms_task}`", metrics + renamed]


if __name__ == "__main__":
    sys.stdout.write(settings_tables())
