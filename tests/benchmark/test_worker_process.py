"""Whatever a worker does, the one who asks gets a result or one line, and no process is left."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from flashsloth.benchmark import worker_process
from flashsloth.benchmark.worker_process import WorkerError, WorkerProcess

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"result": request}), flush=True)
"""
FAIL = "import json, sys; sys.stdin.readline(); print(json.dumps({'error': 'ValueError: no'}), flush=True); input()"
DIE = "import sys; sys.stdin.readline(); sys.exit('out of luck')"
KILLED = f"import os, sys; sys.stdin.readline(); os.kill(os.getpid(), {int(signal.SIGKILL)})"
BABBLE = "import sys; sys.stdin.readline(); print('hello', flush=True); input()"
HANG_UP = "import os, sys, time; sys.stdin.readline(); os.close(1); time.sleep(60)"
DEAF = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(60)"
THREADS = "import json, os, sys; sys.stdin.readline(); print(json.dumps({'result': os.environ['OMP_NUM_THREADS']}))"


def worker(script: str, threads: int | None = None) -> WorkerProcess:
    return WorkerProcess(threads, [sys.executable, "-c", script])


def is_alive(process: WorkerProcess) -> bool:
    return process._process.poll() is None


def test_requests_and_results() -> None:
    with worker(ECHO) as process:
        assert process.request("run", picture=3) == {"do": "run", "picture": 3}
        assert process.request("peak") == {"do": "peak"}
    assert process._process.returncode == 0  # it ended by itself when nothing more was asked


def test_threads_are_told() -> None:
    with worker(THREADS, threads=3) as process:
        assert process.request("run") == "3"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (FAIL, "ValueError: no"),
        (DIE, "ended by itself with code 1: out of luck"),
        (KILLED, "was killed, most likely by the system for want of memory"),
        (BABBLE, "said 'hello'; expected JSON"),
    ],
)
def test_what_goes_wrong_is_one_line(script: str, message: str) -> None:
    with worker(script) as process, pytest.raises(WorkerError, match=message):
        process.request("run")
    assert not is_alive(process)


def test_one_that_is_gone_stays_gone() -> None:
    with worker(DIE) as process:
        for _ in range(2):
            with pytest.raises(WorkerError, match="ended by itself"):
                process.request("run")


def test_one_that_hangs_up_or_hears_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "CLOSE_SECONDS", 0.2)
    process = worker(HANG_UP)
    with pytest.raises(WorkerError, match="stopped answering"):
        process.request("run")
    process.close()
    deaf = worker(DEAF)
    deaf.close()
    assert not is_alive(process)
    assert not is_alive(deaf)


def test_an_interruption_leaves_no_orphan() -> None:
    with pytest.raises(KeyboardInterrupt), worker(DEAF) as process:
        raise KeyboardInterrupt
    assert not is_alive(process)


def test_ctrl_c_at_the_terminal_does_not_reach_a_worker() -> None:
    with worker(ECHO) as process:
        assert os.getpgid(process._process.pid) != os.getpgid(0)


def test_a_worker_ends_with_its_master() -> None:
    process = worker(ECHO)
    assert process._process.stdin is not None
    process._process.stdin.close()  # as when the master is killed
    deadline = time.monotonic() + 60
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process)
    process.close()
