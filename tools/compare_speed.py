"""Is this work tree as fast as that one? Both answer side by side, in one run.

    git worktree add ../before <commit>
    python tools/compare_speed.py ../before . --model nano
    python tools/compare_speed.py ../before . --model true-size --quantize int8 --out comparison.json

In: two work trees of this project (or their `src`), old and new. Out: a table, a JSON file if wanted, and exit code 1
if the new tree misses a gate: loading and every workload at least 95 % as fast as in the old tree, in no more than
105 % of its memory (the highest resident size meanwhile; on an accelerator, of what torch allocated there as well).

Each tree answers in a process of its own, started by the same Python with as many threads, and only one of them works
at a time. A pair is one measurement of each, one right after the other, with the same pictures, and who comes first
alternates; what counts is the median of the pairs' ratios. Two ways to take turns:

    side by side    both models stay in memory; every workload is warmed up, then  old new | new old | old new ...
    one at a time   (large models, unless --side-by-side) a pair is two processes, one after the other: load, answer
                    once, do all workloads, end. Old and new are then minutes apart, so that what disturbs the machine
                    meanwhile weighs more.

Side by side, a pair during which other programs took more than 3 % of the processor time is repeated, at most as often
as there are pairs; how much they took in the pairs that count is part of the table. On a machine that others use all
the time the wall clock tells more of them than of the trees: there, `--clock processor` holds the gates by the
processor time of the process, which knows nothing of waiting; `--threads 1` keeps threads that spin from counting.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speed_pairs import Comparer, Settings
from speed_result import CLOCKS, LEAST_SPEED, MOST_MEMORY, NEW, OLD, TITLES, WALL, Comparison, table

from flashsloth.benchmark.checkpoints import KINDS, NANO, make_checkpoint
from flashsloth.benchmark.worker_process import WorkerError, WorkerProcess
from flashsloth.errors import BenchmarkError
from flashsloth.files import write_whole

PAIRS, PICTURES = 5, 200
WORKER = Path(__file__).with_name("speed_worker.py")


def source_folder(tree: Path) -> Path:
    """Where a tree keeps its package.

    Raises:
        BenchmarkError: if it has none.
    """
    for folder in (tree / "src", tree):
        if (folder / "flashsloth" / "__init__.py").is_file():
            return folder.resolve()
    raise BenchmarkError(f"{tree} holds no src/flashsloth; expected a work tree of this project, or its src folder")


@contextmanager
def start_worker(source: Path, threads: int | None) -> Iterator[WorkerProcess]:
    """A worker with the code of `source`.

    Raises:
        BenchmarkError: if it has other code.
    """
    with WorkerProcess(threads, [sys.executable, str(WORKER), str(source)]) as worker:
        file = worker.request("about")["file"]
        if not Path(file).resolve().is_relative_to(source):
            raise BenchmarkError(f"the process for {source} imported {file}; expected that tree's own code")
        yield worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and tell by the exit code."""
    options = _parser().parse_args(arguments)
    try:
        sources = {OLD: source_folder(options.old), NEW: source_folder(options.new)}
        settings = _settings(options)
        with tempfile.TemporaryDirectory(prefix="compare-speed-", dir=options.scratch) as folder:
            _say(f"making the checkpoint: {settings.model}")
            make_checkpoint(settings.model, Path(folder))
            comparer = Comparer(settings, lambda tree: start_worker(sources[tree], options.threads), Path(folder), _say)
            comparer.run()
    except (BenchmarkError, WorkerError) as error:
        print(f"compare_speed: {error}", file=sys.stderr)
        return 2
    comparisons = list(comparer.comparisons.values())
    turns = "side by side" if settings.side_by_side else "one process at a time"
    print(f"{settings.model}, {settings.quantize or 'default precision'}, {settings.pairs} pairs, {turns}")
    print(f"old: {sources[OLD]}\nnew: {sources[NEW]}")
    print(table(comparisons))
    if options.out is not None:
        write_whole(options.out, json.dumps(_report(settings, comparer.about, comparisons), indent=1) + "\n")
    return int(any(comparison.misses for comparison in comparisons))


def _report(settings: Settings, about: dict[str, Any], comparisons: list[Comparison]) -> dict[str, Any]:
    return {
        "settings": dataclasses.asdict(settings),
        "gates": {"least_speed": LEAST_SPEED, "most_memory": MOST_MEMORY},
        "trees": about,
        "workloads": [comparison.summary() for comparison in comparisons],
    }


def _settings(options: argparse.Namespace) -> Settings:
    unknown = sorted(set(options.only) - set(TITLES))
    if unknown:
        raise BenchmarkError(f"there is no workload {unknown[0]!r}; expected some of {', '.join(TITLES)}")
    return Settings(
        model=options.model,
        quantize=options.quantize,
        device=options.device,
        pairs=options.pairs,
        names=tuple(name for name in TITLES if not options.only or name in options.only),
        pictures=options.pictures,
        side_by_side=options.model == NANO or options.side_by_side,
        clock=options.clock,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare the speed of two work trees of this project.")
    parser.add_argument("old", type=Path, help="the work tree that sets the measure")
    parser.add_argument("new", type=Path, help="the work tree that is held to it")
    parser.add_argument("--model", choices=KINDS, default=NANO)
    parser.add_argument("--quantize", choices=("int8", "int4"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pairs", type=_count, default=PAIRS)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"some of: {', '.join(TITLES)}")
    parser.add_argument("--pictures", type=_count, default=PICTURES, help="of the workload with very many")
    parser.add_argument("--side-by-side", action="store_true", help="keep both models in memory, large ones too")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default=WALL, help="what the speed gates are held by")
    parser.add_argument("--threads", type=_count, help="of each process; torch's own choice if not given")
    parser.add_argument("--scratch", type=Path, help="where the checkpoint is made: 7 GB for the large ones")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} found; expected at least 1")
    return number


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
