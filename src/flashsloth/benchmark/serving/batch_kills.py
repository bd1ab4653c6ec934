"""B1: a batch that is killed again and again, whose input is shuffled meanwhile, and whose disk fills.

In: how many kills. Out: whether each id is answered once, as in a run that nothing interrupts.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.questions import draw_question, picture_bytes

LINES, PICTURES, TOKENS = 400, 20, 12
TORN_EACH = 3
"""After one of so many kills, the last line is torn as by a power failure."""
TORN = b'{"id": "q1", "answer": "r'
MOST_SECONDS = 3600.0
FULL_STATUS = 1


def batch_kills(kills: int, say: Callable[[str], None]) -> RowResult:
    """Run, kill, change, run again."""
    result = RowResult("B1")
    with tempfile.TemporaryDirectory(prefix="flashsloth-batch-") as name:
        work = _Batch(Path(name))
        started = time.monotonic()
        status = work.run("whole.jsonl")
        whole_seconds = time.monotonic() - started
        expected = work.read("whole.jsonl")
        if status != 0 or len(expected) != LINES:
            result.wrong.append(f"an uninterrupted run: status {status}, {len(expected)} answers; expected {LINES}")
            return result
        done = rounds = 0
        while done < kills:
            rounds += 1
            done, wrong = _until_complete(work, rounds, done, kills, whole_seconds, say)
            result.wrong += wrong + _differences(expected, work.read("killed.jsonl"))
            (work.folder / "killed.jsonl").unlink()
        result.wrong += _full_disk(work, expected)
        result.add("kills", done, least=kills)
        result.add("batches that they were spread over", rounds)
        result.add("questions a batch", LINES)
    return result


class _Batch:
    """Questions in a folder, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for number in range(PICTURES):
            (folder / f"{number}.png").write_bytes(picture_bytes(number))
        asked = (draw_question(number, PICTURES, TOKENS) for number in range(LINES))
        self._lines = [
            json.dumps({"id": f"q{number}", "picture": f"{one.picture}.png", "question": f"{one.text} ({number})"})
            for number, one in enumerate(asked)
        ]
        self.shuffle(0)

    def shuffle(self, seed: int) -> None:
        """Put the questions into another order."""
        lines = random.Random(seed).sample(self._lines, len(self._lines))
        (self.folder / "asked.jsonl").write_text("\n".join(lines) + "\n")

    def start(self, out: str, file_bytes: int | None = None) -> subprocess.Popen[bytes]:
        """Start the command; with a limit on the size of files, as a full disk would set it."""

        def limit() -> None:
            import resource

            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        files = str(self.folder / "asked.jsonl"), str(self.folder / out)
        command = [sys.executable, "-m", "flashsloth", "batch", *files, "--max-tokens", str(TOKENS)]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=quiet, stderr=quiet, preexec_fn=limit)

    def run(self, out: str, file_bytes: int | None = None) -> int:
        """The command's exit status."""
        return self.start(out, file_bytes).wait(MOST_SECONDS)

    def read(self, out: str) -> list[tuple[str, str]]:
        """Ids and answers, sorted."""
        rows: list[dict[str, Any]] = [json.loads(line) for line in (self.folder / out).read_text().splitlines()]
        return sorted((row["id"], str(row.get("answer"))) for row in rows)


def _until_complete(
    work: _Batch, rounds: int, done: int, kills: int, whole_seconds: float, say: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Kill runs at random moments until one completes, or there were enough kills: (kills so far, what was wrong)."""
    chance = random.Random(rounds)
    out = work.folder / "killed.jsonl"
    while done < kills:
        work.shuffle(done)
        process = work.start(out.name)
        try:
            status = process.wait(chance.random() * whole_seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            say(f"B1: kill {done} of {kills}")
            if out.exists() and done % TORN_EACH == 0:
                with out.open("ab") as file:
                    file.write(TORN)
        else:
            return done, [] if status == 0 else [f"a run ended with {status}; expected 0"]
    status = work.run(out.name)
    return done, [] if status == 0 else [f"the last run ended with {status}; expected 0"]


def _differences(expected: list[tuple[str, str]], found: list[tuple[str, str]]) -> list[str]:
    ids = [one for one, _ in found]
    twice = len(ids) - len(set(ids))
    wrong = [f"{twice} ids stand twice"] if twice else []
    if missing := len({one for one, _ in expected} - set(ids)):
        wrong.append(f"{missing} ids are missing")
    different = len(set(found) - set(expected))
    return [*wrong, f"{different} answers differ from the uninterrupted run's"] if different else wrong


def _full_disk(work: _Batch, expected: list[tuple[str, str]]) -> list[str]:
    """A run whose output may not grow beyond half, and one after it that may."""
    half = (work.folder / "whole.jsonl").stat().st_size // 2
    status = work.run("full.jsonl", half)
    wrong = [] if status == FULL_STATUS else [f"on a full disk it ended with {status}; expected {FULL_STATUS}"]
    kept = work.read("full.jsonl") if (work.folder / "full.jsonl").exists() else []
    if not kept:
        wrong.append("on a full disk nothing was kept")
    status = work.run("full.jsonl")
    return [*wrong, *([] if status == 0 else [f"after it {status}"]), *_differences(expected, work.read("full.jsonl"))]
