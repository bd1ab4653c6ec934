"""Processes of the server are as others are: streams, folder, variables, exit codes, and they end with who asked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from forked import SECONDS, Process, python, run_python

POLL_SECONDS = 0.01


def test_streams_arguments_and_variables(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, sys.stdin.read(), os.getcwd(), os.environ['COLOUR']); sys.exit('no more')"
    done = subprocess.run(
        [*python(), "-c", code, "a", "b c"],
        input="asked",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "COLOUR": "red"},
    )
    assert done.stdout == f"['-c', 'a', 'b c'] asked {tmp_path} red\n"
    assert (done.stderr, done.returncode) == ("no more\n", 1)


def test_an_error_is_seen() -> None:
    done = run_python("raise ValueError('odd')")
    assert done.stderr.endswith("ValueError: odd\n")
    assert done.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_arrive(number: signal.Signals) -> None:
    code = (
        f"import signal, sys; signal.signal({int(number)}, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"
    )
    process = subprocess.Popen([*python(), "-c", code, str(int(number))], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 7


def wait_until_killed(path: Path) -> None:
    path.write_text(str(os.getpid()))
    signal.pause()


def test_one_that_is_killed_is_told_and_none_is_left_alone(tmp_path: Path) -> None:
    process = Process(wait_until_killed, tmp_path / "first")
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    assert process.join()
    assert process.exitcode == -signal.SIGKILL
    left = Process(wait_until_killed, tmp_path / "second")
    number = left.pid
    del left
    end = time.monotonic() + SECONDS
    while psutil.pid_exists(number):
        assert time.monotonic() < end
        time.sleep(POLL_SECONDS)
