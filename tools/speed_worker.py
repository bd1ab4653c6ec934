"""A process that answers with one work tree's FlashSloth and says how long it took; `compare_speed.py` starts it.

    python tools/speed_worker.py TREE/src

In: requests on stdin, a JSON object a line, such as `{"do": "load", ...}`. Out: a reply on stdout for each,
`{"result": ...}` or `{"error": "one line"}`. It ends when stdin does; what libraries print goes to stderr.

    about                                                  version and place of the code, threads
    load      folder, device, quantize, repetitions        a measurement
    check                                                  nothing, or an error where answers end before their length
    run       workload, number, repetitions, pictures      a measurement
    cpu                                                    processor seconds of this process so far

It calls what every version of the project has, `flashsloth.load` and the answering methods of what that returns, and
imports nothing else of it: the tree that is measured may be older than this file.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

REQUESTS = ("about", "load", "check", "run", "cpu")
SHORT, LONG = 2, 64
"""Tokens of an answer."""
CHECKED = 16
"""Tokens after which an answer that can end would have ended."""
KNOWN_ROWS = 4
"""Pictures that are asked about again together: so many of FlashSloth-HD's fit into the default picture cache."""
WIDTH, HEIGHT = 640, 480
QUESTION, NEXT_QUESTION = "What is in the picture, and what color is it?", "How many objects are there on the left?"
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to `clear_refs`, it sets the highest resident size to the present one."""


class Stopwatch:
    """Adds up what happens inside `with` blocks; workloads prepare their pictures outside.

    Attributes:
        seconds: on the wall.
        processor_seconds: of all threads of this process, which others who use the machine hardly change.
    """

    def __init__(self) -> None:
        self.seconds = self.processor_seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *exception: object) -> None:
        wall, processor = self._start
        self.seconds += time.perf_counter() - wall
        self.processor_seconds += time.process_time() - processor


@dataclass
class Turn:
    """One repetition of a workload: the model, new pictures, and where its time goes."""

    sloth: Any
    pictures: Iterator[Any]
    count: int  # of the pictures of the workload with very many of them
    watch: Stopwatch = field(default_factory=Stopwatch)

    def first_piece(self, picture: Any, question: str) -> list[str]:
        """Time an answer of two tokens up to its first piece; nothing of it is left running."""
        with self.watch:
            stream = self.sloth.stream(picture, question, max_new_tokens=SHORT)
            first = next(stream)
        return [first, *stream]


Work = Callable[[Turn], list[str]]
"""Does a workload once, and returns its answers."""


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        work: does it.
        title: for the table.
        tokens: made in the measured time; None where the number of pictures says it.
    """

    work: Work
    title: str
    tokens: int | None


def first_token(turn: Turn) -> list[str]:
    """About a new picture."""
    return turn.first_piece(next(turn.pictures), QUESTION)


def next_question(turn: Turn) -> list[str]:
    """About a picture that was asked about before."""
    picture = next(turn.pictures)
    turn.sloth.answer(picture, QUESTION, max_new_tokens=SHORT)
    return turn.first_piece(picture, NEXT_QUESTION)


def one(tokens: int) -> Work:
    """One answer about a new picture."""

    def work(turn: Turn) -> list[str]:
        picture = next(turn.pictures)
        with turn.watch:
            return [turn.sloth.answer(picture, QUESTION, max_new_tokens=tokens)]

    return work


def batch(rows: int, tokens: int) -> Work:
    """Answers about new pictures, together."""

    def work(turn: Turn) -> list[str]:
        pairs = [(next(turn.pictures), QUESTION) for _ in range(rows)]
        with turn.watch:
            return list(turn.sloth.answer_batch(pairs, max_new_tokens=tokens))

    return work


def known_batch(turn: Turn) -> list[str]:
    """Answers about pictures that were asked about before, together."""
    pictures = [next(turn.pictures) for _ in range(KNOWN_ROWS)]
    turn.sloth.answer_batch([(picture, QUESTION) for picture in pictures], max_new_tokens=SHORT)
    with turn.watch:
        return list(turn.sloth.answer_batch([(each, NEXT_QUESTION) for each in pictures], max_new_tokens=SHORT))


def very_many(turn: Turn) -> list[str]:
    """Short answers about many new pictures, as they get done; pictures are made as they are asked for."""
    pairs = ((next(turn.pictures), QUESTION) for _ in range(turn.count))
    with turn.watch:
        answers = dict(turn.sloth.answer_as_ready(pairs, max_new_tokens=SHORT))
    return [answers[place] for place in range(turn.count)]


WORKLOADS: dict[str, Workload] = {
    "first-token": Workload(first_token, "first token, a new picture", 1),
    "next-question": Workload(next_question, "first token, the next question about a picture", 1),
    **{f"1x{tokens}": Workload(one(tokens), f"one answer of {tokens} tokens", tokens) for tokens in (SHORT, LONG)},
    **{
        f"{rows}x{tokens}": Workload(batch(rows, tokens), f"{rows} answers of {tokens} tokens", rows * tokens)
        for rows in (8, 32)
        for tokens in (SHORT, LONG)
    },
    f"known-{KNOWN_ROWS}x{SHORT}": Workload(
        known_batch, f"{KNOWN_ROWS} answers of {SHORT} tokens, known pictures", KNOWN_ROWS * SHORT
    ),
    "pictures": Workload(very_many, "short answers about very many pictures", None),
}


class Worker:
    """What the requests do."""

    def __init__(self) -> None:
        self._sloth: Any = None

    def about(self) -> dict[str, Any]:
        """What is measured."""
        import torch

        import flashsloth

        version = getattr(flashsloth, "__version__", "unknown")
        return {"version": version, "file": flashsloth.__file__, "threads": torch.get_num_threads()}

    def load(self, folder: str, device: str, quantize: str | None, repetitions: int) -> dict[str, Any]:
        """Load the model some times, each in the place of the one before."""
        import torch  # noqa: F401 - importing is not loading

        import flashsloth

        _reset_peaks()
        watches = [Stopwatch() for _ in range(repetitions)]
        for watch in watches:
            self._sloth = None
            gc.collect()
            with watch:
                self._sloth = flashsloth.load(folder, device=device, quantize=quantize)
        return {**_median(watches), "tokens": 0, "answers": "", **_peaks()}

    def check(self) -> None:
        """Answer for the first time, unmeasured, and see that nothing ends an answer but its length.

        Raises:
            ValueError: if something does.
        """
        picture = next(_make_pictures("check", 0))
        shorter, longer = (self._sloth.answer(picture, QUESTION, max_new_tokens=CHECKED - less) for less in (1, 0))
        if len(longer) <= len(shorter):
            raise ValueError(f"an answer of {CHECKED} tokens is no longer than one of {CHECKED - 1}: {longer!r}")

    def run(self, workload: str, number: int, repetitions: int, pictures: int) -> dict[str, Any]:
        """Do a workload some times, each with new pictures.

        Args:
            workload: a key of `WORKLOADS`.
            number: of the run; another number or workload, other pictures.
            repetitions: how often; the median of their times counts.
            pictures: of the workload with very many of them.
        """
        assert self._sloth is not None, "nothing is loaded"
        chosen = WORKLOADS[workload]
        made = _make_pictures(workload, number)
        gc.collect()
        _reset_peaks()
        turns = [Turn(self._sloth, made, pictures) for _ in range(repetitions)]
        answers = [answer for turn in turns for answer in chosen.work(turn)]
        return {
            **_median([turn.watch for turn in turns]),
            "tokens": pictures * SHORT if chosen.tokens is None else chosen.tokens,
            "answers": hashlib.sha256("\n".join(answers).encode()).hexdigest(),
            **_peaks(),
        }

    def cpu(self) -> float:
        """Of all threads."""
        return time.process_time()


def _median(watches: Sequence[Stopwatch]) -> dict[str, float]:
    return {
        name: statistics.median(getattr(watch, name) for watch in watches) for name in ("seconds", "processor_seconds")
    }


def _make_pictures(workload: str, number: int) -> Iterator[Any]:
    """Coloured noise, each picture another: one picture that is rolled, so that making it takes next to nothing."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng((number, *workload.encode()))
    noise = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for place in range(HEIGHT * WIDTH):
        yield Image.fromarray(np.roll(noise, divmod(place, WIDTH), axis=(0, 1)))


def _reset_peaks() -> None:
    import torch

    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peaks() -> dict[str, int | None]:
    """The most bytes that this process held since the reset, in memory and on an accelerator; None if unknown."""
    import torch

    lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines() if CLEAR_REFS.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return {
        "peak_bytes": None if kilobytes is None else kilobytes * 1024,
        "device_peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def serve(requests: TextIO, replies: TextIO, worker: Worker) -> None:
    """Answer every line; an error is an answer too."""
    for line in requests:
        try:
            request = json.loads(line)
            name = request.pop("do")
            if name not in REQUESTS:
                raise ValueError(f"request is {name!r}; expected one of {', '.join(REQUESTS)}")
            reply = {"result": getattr(worker, name)(**request)}
        except Exception as error:  # the one place where errors become replies
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Serve stdin with the tree that the command line names."""
    sys.path.insert(0, sys.argv[1])
    os.environ["PYTHONPATH"] = sys.argv[1]  # of processes that it may start
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not look like a reply
        serve(sys.stdin, replies, Worker())


if __name__ == "__main__":
    main()
