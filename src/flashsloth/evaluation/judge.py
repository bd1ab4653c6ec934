"""Asks a judge, another model, about answers that no rule can tell right from wrong.

In: predictions, and a task that says what is asked (`Task.judge_request`). Out: the same predictions with judgements.
A reply that is not exactly what the task expects is no judgement, and a failure is none: the answer stays unjudged,
which is never zero; asking again asks only about those. A file is judged in place, and says who judged.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.chat_client import ChatClient, ServerError
from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.predictions import JUDGE, read_predictions, write_predictions
from flashsloth.evaluation.task import EvaluationError, JudgeRequest, Task

KEY_VARIABLE = "FLASHSLOTH_JUDGE_KEY"
"""The environment variable that holds a judge's key."""
AT_ONCE = 8
"""Questions in flight."""
MOST_FAILURES = 16
"""In a row, after which nothing more is asked."""
SAVED_EVERY = 16
"""Judgements, after which a file is written anew."""
SHOWN = 60
"""Characters of a reply that an error quotes."""


class JudgeError(FlashSlothError, ValueError):
    """A judge's reply is no judgement."""


@dataclass
class JudgeReport:
    """How judging went.

    Attributes:
        asked: answers that it was asked about.
        judged: of them, how many have a judgement now.
        failures: what went wrong -> how often; what was not asked any more is not among them.
        models: that judged, by the server's own word.
    """

    asked: int = 0
    judged: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)


def unjudged(task: Task, predictions: Sequence[Prediction], times: int = 1) -> list[tuple[int, JudgeRequest]]:
    """(place, what to ask) of the answers that need a judge, as often as they lack judgements."""
    asked = []
    for place, one in enumerate(predictions):
        if len(one.judgements) < times and (request := task.judge_request(one)) is not None:
            asked += [(place, request)] * (times - len(one.judgements))
    return asked


def ask_judge(
    client: ChatClient, requests: Sequence[tuple[int, JudgeRequest]], report: JudgeReport
) -> Iterator[tuple[int, str]]:
    """(place, judgement) as they come; what fails is only counted in `report`. The client is closed in the end."""
    todo: queue.SimpleQueue[tuple[int, JudgeRequest]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, str | Exception]] = queue.SimpleQueue()
    for one in requests:
        todo.put(one)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                place, request = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, _ask(client, request, report)))
            except Exception as error:  # raised or counted in the caller's thread
                if isinstance(error, ServerError) and error.is_for_all:
                    is_over.set()
                done.put((place, error))

    for _ in range(min(AT_ONCE, len(requests))):
        threading.Thread(target=work, daemon=True).start()  # daemons: nobody waits for a server after Ctrl-C
    failed = 0
    try:
        for _ in requests:
            place, found = done.get()
            report.asked += 1
            if isinstance(found, str):
                failed = 0
                report.judged += 1
                yield place, found
                continue
            if not isinstance(found, FlashSlothError):
                raise found
            report.failures[str(found)] += 1
            failed += 1
            if failed == MOST_FAILURES or (isinstance(found, ServerError) and found.is_for_all):
                break
    finally:
        is_over.set()
        client.close()


def _ask(client: ChatClient, request: JudgeRequest, report: JudgeReport) -> str:
    messages: list[dict[str, Any]] = [{"role": "user", "content": request.text}]
    reply = client.chat(messages, max_tokens=request.max_tokens, temperature=request.temperature)
    report.models.add(reply.model or client.model)
    if (found := request.read(reply.text)) is None:
        shown = " ".join(reply.text.split())[:SHOWN]
        raise JudgeError(f"the judge's reply is no judgement: {shown!r}")
    return found


def judge_file(
    path: Path, task: Task, client: ChatClient, times: int = 1, progress: Callable[[], object] | None = None
) -> JudgeReport:
    """Have a file of predictions judged, in place: whatever ends it, what was judged by then is in the file.

    Args:
        path: a `predictions.jsonl`.
        task: its task.
        client: the judge.
        times: judgements that each answer shall have.
        progress: called after each.

    Raises:
        EvaluationError: where another judge began.
    """
    header, predictions = read_predictions(path)
    before = header.get(JUDGE, {"model": client.model})
    if before.get("model") != client.model and any(one.judgements for one in predictions):
        raise EvaluationError(
            f"{path} was judged by {before.get('model')}, not {client.model}: judge with that one, or a copy of "
            "the file whose lines have no judgements"
        )
    report = JudgeReport(models=set(before.get("models", ())))

    def save() -> None:
        addresses = sorted({client.url, *before.get("addresses", ())})
        header[JUDGE] = {"model": client.model, "models": sorted(report.models), "addresses": addresses}
        write_predictions(path, header, predictions)

    try:
        for place, said in ask_judge(client, unjudged(task, predictions, times), report):
            predictions[place] = replace(predictions[place], judgements=(*predictions[place].judgements, said))
            if progress is not None:
                progress()
            if report.judged % SAVED_EVERY == 0:
                save()
    finally:
        if report.judged:
            save()
    return report
