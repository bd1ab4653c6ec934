"""The thread: it starts with the first request, sleeps when idle, and tells everyone when it fails."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import Any

import pytest
from test_engine_steps import QUESTIONS, finish, make_engine, request, tokens

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine_thread import EngineThread
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason

NAME = "flashsloth engine"


def running_threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == NAME]


def test_several_threads_ask_and_get_what_stepping_gives(sloth: FlashSloth) -> None:
    stepped = make_engine(sloth)
    asked = [(QUESTIONS[number % 3], number % 2) for number in range(6)]
    ids = [stepped.add_request(request(sloth, *one, max_tokens=8)) for one in asked]
    expected = {number: tokens(outputs) for number, outputs in finish(stepped).items()}
    before_any = set(running_threads())
    thread = EngineThread(make_engine(sloth))
    assert set(running_threads()) == before_any  # it starts with the first request
    found: dict[int, list[int]] = {}

    def ask(number: int, thread: EngineThread) -> None:
        found[number] = tokens(list(thread.submit(request(sloth, *asked[number], streams=True, max_tokens=8))))

    askers = [threading.Thread(target=ask, args=(number, thread)) for number in range(len(asked))]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    del asker
    assert found == {number: expected[request_id] for number, request_id in enumerate(ids)}
    [driver] = set(running_threads()) - before_any
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1  # asleep, not turning
    del thread, askers
    gc.collect()
    driver.join()


def test_who_stops_reading_or_drops_a_reply_aborts(sloth: FlashSloth) -> None:
    engine: Any = make_engine(sloth)
    engine.end_ids = []
    thread = EngineThread(engine)
    aborted: list[int] = []
    heard = threading.Event()

    def abort(request_id: int) -> None:
        aborted.append(request_id)
        type(engine).abort(engine, request_id)
        heard.set()

    engine.abort = abort
    reading = iter(thread.submit(request(sloth, QUESTIONS[0], streams=True, max_tokens=900)))
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    dropped = thread.submit(request(sloth, QUESTIONS[0], streams=True, max_tokens=900))
    number = dropped.request_id
    del dropped
    assert aborted == [0, number]
    whole = list(thread.submit(request(sloth, QUESTIONS[1], max_tokens=3)))
    assert whole[-1].finish_reason == FinishReason.LENGTH
    assert aborted == [0, number]


def test_everyone_hears_that_it_has_failed(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = make_engine(sloth)
    thread = EngineThread(engine)

    def step() -> None:
        raise SystemError("no memory for anything")

    monkeypatch.setattr(engine, "step", step)
    reply = thread.submit(request(sloth, QUESTIONS[0]))
    with pytest.raises(EngineError, match="SystemError: no memory for anything"):
        list(reply)
    with pytest.raises(EngineError, match="load the model again"):
        thread.submit(request(sloth, QUESTIONS[0]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_that_the_thread_is_not_there(sloth: FlashSloth) -> None:
    thread = EngineThread(make_engine(sloth))
    asked = request(sloth, QUESTIONS[0], max_tokens=2)
    list(thread.submit(asked))
    begun = thread.submit(request(sloth, QUESTIONS[0], max_tokens=900))
    with thread._mailbox.lock:  # as if a thread that the fork leaves behind held it
        child = os.fork()
        if not child:
            signal.alarm(60)
            told = 0
            for ask in (lambda: thread.submit(asked), lambda: list(begun)):
                try:
                    ask()
                except EngineError as error:
                    told += "forked" in str(error)
            os._exit(5 + told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    begun.abort()
    assert tokens(list(thread.submit(asked)))


def test_a_request_whose_caller_was_interrupted_is_nobodys(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = make_engine(sloth)
    engine.end_ids = []
    thread = EngineThread(engine)
    add = engine.add_request

    def interrupted(asked: Any) -> int:
        add(asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "add_request", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.submit(request(sloth, QUESTIONS[0], streams=True, max_tokens=900))
    monkeypatch.setattr(engine, "add_request", add)
    whole = list(thread.submit(request(sloth, QUESTIONS[1], max_tokens=3)))
    assert whole[-1].finish_reason == FinishReason.LENGTH
    end = time.monotonic() + 60
    while engine.has_work and time.monotonic() < end:
        time.sleep(0.01)
    assert not engine.has_work
    assert not thread._mailbox.receivers
