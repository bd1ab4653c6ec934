"""The server on a real Ray of this machine: two replicas, one killed under load; refusals in our own form.

Slow, and not of `dev`: `pip install -c constraints.txt 'ray[serve,data]'` first. Takes a gigabyte and a minute.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

CLIENTS, PATIENCE, BACK_SECONDS = 8, 60.0, 60.0
STORE_BYTES = 100 << 20
REPLICA = "ray::ServeReplica"
BODY = {"model": "nano", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where two replicas answer."""
    from ray import serve

    from flashsloth.serving.ray_deployment import RaySettings, application

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=STORE_BYTES)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(application(RaySettings(replicas=2, cpus=0.2, max_running=8, max_waiting=2, api_keys="one,two")))
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def client() -> httpx2.Client:
    return httpx2.Client(timeout=PATIENCE, headers={"Authorization": "Bearer two"})


def replicas() -> list[int]:
    """Process numbers of replicas that are there, among the processes of this test."""
    found = []
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        if any(REPLICA in text for text in [process.info["name"] or "", *(process.info["cmdline"] or [])]):
            found.append(process.info["pid"])
    return found


def test_two_replicas_answer_and_one_is_killed(url: str) -> None:
    """R1: no error that a client need not repeat, and two replicas again."""
    [first, *_] = before = replicas()
    assert len(before) == 2
    ended, outcomes, first_try = threading.Event(), Counter[str](), Counter[str]()
    wrong: list[str] = []

    def ask() -> None:
        with client() as mine:
            while not ended.is_set():
                until = time.monotonic() + PATIENCE
                for attempt in range(1000):
                    assert time.monotonic() < until, "a request was never answered"
                    try:
                        reply = mine.post(f"{url}/v1/chat/completions", json=BODY)
                    except httpx2.TransportError as error:  # the connection went: clients ask again
                        status = type(error).__name__
                    else:
                        status = str(reply.status_code)
                        if status == "200" and not reply.json()["choices"][0]["finish_reason"]:
                            wrong.append(reply.text)
                    first_try[status] += attempt == 0
                    outcomes[status] += 1
                    if status == "200":
                        break
                    if status.startswith("4") and status != "429":
                        wrong.append(status)
                        return
                    time.sleep(0.2)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    wait_until(lambda: outcomes["200"] >= 50)
    os.kill(first, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: len(set(replicas()) - {first}) == 2)
    back = time.monotonic() - killed
    wanted = outcomes["200"] + 50
    wait_until(lambda: outcomes["200"] >= wanted)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    print(f"\n{dict(outcomes)}; first tries {dict(first_try)}; two replicas again after {back:.1f} s")
    assert not wrong
    assert back <= BACK_SECONDS


def wait_until(found: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_refusals_are_ours(url: str) -> None:
    statuses: list[tuple[int, str | None]] = []

    def ask() -> None:
        with client() as mine:
            reply = mine.post(f"{url}/v1/chat/completions", json={**BODY, "n": 8, "temperature": 1, "max_tokens": 64})
            statuses.append((reply.status_code, reply.headers.get("retry-after")))

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(statuses) == 24
    assert {status for status, _ in statuses} == {200, 429}
    assert all(seconds is not None for status, seconds in statuses if status == 429)


def test_streams_come_piece_by_piece_and_end_where_their_reader_leaves(url: str) -> None:
    with client() as mine:
        body = {**BODY, "stream": True}
        with mine.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            assert reply.status_code == 200
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            text = "".join(reply.iter_text())
        assert text.endswith("data: [DONE]\n\n")
        long = {**body, "n": 8, "temperature": 1, "max_tokens": 2000, "logit_bias": {"1": -100}}
        for _ in range(6):  # those that are left take no row: else the later ones were refused
            with mine.stream("POST", f"{url}/v1/chat/completions", json=long) as reply:
                assert reply.status_code == 200
                next(reply.iter_text())
            wait_until(lambda: mine.post(f"{url}/v1/chat/completions", json={**BODY, "n": 8}).status_code == 200)


def test_keys_and_names_count_here_too(url: str) -> None:
    assert httpx2.post(f"{url}/v1/chat/completions", json=BODY).status_code == 401
    with client() as mine:
        assert mine.get(f"{url}/v1/models", headers={"Host": "elsewhere.example"}).status_code == 421
        assert mine.get(f"{url}/health/ready").json() == {"status": "ready"}
        assert [one["id"] for one in mine.get(f"{url}/v1/models").json()["data"]] == ["nano"]


def test_a_replica_whose_engine_dies_is_not_healthy() -> None:
    from flashsloth.serving.ray_deployment import RaySettings, Replica

    replica = Replica(RaySettings())
    replica.check_health()
    replica._service.is_warm = True
    engine = replica._service.sloth.engine

    def broken() -> Any:
        raise RuntimeError("a fault")

    engine.step = broken  # type: ignore[method-assign]
    with pytest.raises(Exception, match="the engine has failed"):
        replica._service.sloth.answer(None, "Hello")
    wait_until(lambda: replica._problem is not None)
    with pytest.raises(RuntimeError, match="the engine has died: RuntimeError"):
        replica.check_health()


def test_settings_that_cannot_be_are_refused_before_anything_starts() -> None:
    from flashsloth.serving.config import ServeError
    from flashsloth.serving.ray_deployment import RaySettings, application

    with pytest.raises(ServeError, match="deadline is -1"):
        application(RaySettings(deadline=-1))
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        application({"replica": 2})
    words = {"replicas": "1", "most_replicas": "4", "max_running": "16"}  # as `serve run` hands them over
    scaled = application(words)._bound_deployment
    assert scaled._deployment_config.autoscaling_config.max_replicas == 4
    assert scaled._deployment_config.autoscaling_config.target_ongoing_requests == 16
    assert scaled._deployment_config.max_queued_requests == -1
