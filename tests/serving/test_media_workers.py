"""Pictures opened in processes of their own: the same views, and no process lives or dies as a stranger wants."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from picture_urls import data_url, png_url
from tiny import picture

from flashsloth.media import PictureError
from flashsloth.media.views import ViewSettings, digest, picture_views
from flashsloth.serving.config import ServeConfig, ServeError
from flashsloth.serving.media_process import MediaError, MediaUnavailable
from flashsloth.serving.media_workers import MediaWorkers

PATIENCE = 60.0
REPLACED_SECONDS = 5.0
SETTINGS = ViewSettings(56, 2)
"""A view's side and grid: an HD model, so that there are several views."""
CONFIG = ServeConfig(media_seconds=20.0)
ONE = replace(CONFIG, media_workers=1)
STUCK_HOOK = """
import time
from flashsloth.serving import media_worker

whole = media_worker.open_views

def open_views(source, views, settings):
    if source == "data:stuck":
        time.sleep(600)
    if source == "data:busy":
        while True:
            pass
    if source == "data:dead":
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)
    if source == "data:large":
        return bytearray(1 << 40)
    if source == "data:mistake":
        raise KeyError("a mistake\\nof ours")
    if source.startswith("data:slow"):
        time.sleep(0.2)
        source = source[len("data:slow"):]
    return whole(source, views, settings)

import __main__
__main__.open_views = open_views
"""
"""What pictures may bring a worker to, without depending on a decoder's mistakes."""


def run(
    test: Callable[[MediaWorkers], Coroutine[Any, Any, None]], config: ServeConfig, hook: Path | None = None
) -> None:
    """A test with workers that are started before and ended after it."""

    async def whole() -> None:
        workers = MediaWorkers(config, SETTINGS, hook)
        await workers.start()
        pids = workers.pids
        try:
            async with asyncio.timeout(PATIENCE):
                await test(workers)
        finally:
            pids += workers.pids
            await workers.close()
        assert not any(map(psutil.pid_exists, pids))

    asyncio.run(whole())


async def wait_until(holds: Callable[[], bool]) -> None:
    """Until a condition holds; the test's patience ends it."""
    while not holds():
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of workers that obey."""
    path = tmp_path_factory.mktemp("hook") / "hook.py"
    path.write_text(STUCK_HOOK, encoding="utf-8")
    return path


def test_views_are_those_of_this_process() -> None:
    async def test(workers: MediaWorkers) -> None:
        pictures = [picture(seed, 20 + 31 * seed, 90) for seed in range(6)]
        for resolution, count in ((None, 5), ("hd", 5), ("standard", 1)):
            made = await asyncio.gather(*(workers.prepare(png_url(one), resolution) for one in pictures))
            for ours, one in zip(made, pictures, strict=True):
                expected = picture_views(one, SETTINGS, count)
                assert (ours.size, ours.digest) == (expected.size, expected.digest)
                assert np.array_equal(ours.views, expected.views)

    run(test, CONFIG)


def test_in_another_thread_by_uvloop() -> None:
    """As Ray Serve runs an application."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed; Ray Serve brings it")
    made = []

    async def ask() -> None:
        workers = MediaWorkers(ONE, SETTINGS)
        await workers.start()
        for source in (png_url(picture(1, 900, 700)), "data:,"):
            try:
                made.append((await workers.prepare(source)).digest)
            except PictureError as error:
                made.append(str(error))
        await workers.close()

    thread = threading.Thread(target=lambda: uvloop.run(ask()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert made[0] == digest(picture(1, 900, 700))
    assert len(made) == 2


def test_a_source_is_known_once_it_was_opened() -> None:
    async def test(workers: MediaWorkers) -> None:
        one = picture(3, 40, 30)
        assert workers.known(png_url(one)) is None
        await workers.prepare(png_url(one), "standard")
        assert workers.known(png_url(one)) == (digest(one), (40, 30))
        assert workers.known(png_url(one) + " ") is None
        assert workers.known("http://127.0.0.1/") is None

    run(test, ONE)


@pytest.mark.parametrize(
    "source", ["", "x", "/etc/passwd", "file:///etc/passwd", "data:", "data:,", "data:;base64,A", "\ud800"]
)
def test_what_is_no_picture_is_told_in_a_line(source: str) -> None:
    async def test(workers: MediaWorkers) -> None:
        [pid] = workers.pids
        with pytest.raises(PictureError) as refusal:
            await workers.prepare(source)
        assert not isinstance(refusal.value, MediaError)
        assert str(refusal.value).isprintable()
        assert (await workers.prepare(png_url(picture(1)))).views.shape[0] == 5
        assert workers.pids == [pid]

    run(test, ONE)


def test_a_resolution_that_there_is_not_is_a_mistake() -> None:
    async def test(workers: MediaWorkers) -> None:
        with pytest.raises(ValueError, match="resolution is 'large'"):
            await workers.prepare(png_url(picture(1)), "large")

    run(test, ONE)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("data:stuck", r"takes more than 1\.2 s to open"),
        ("data:busy", r"takes more than (0\.2 s of processor time|1\.2 s) to open"),
        ("data:dead", r"ended the process that opened it \(signal 11\)"),
        ("data:mistake", r"cannot be opened \(KeyError: KeyError 'a mistake\\nof ours'\)"),
    ],
)
def test_a_worker_that_does_not_survive_is_replaced(source: str, told: str, hook: Path) -> None:
    async def test(workers: MediaWorkers) -> None:
        [pid] = workers.pids
        with pytest.raises(MediaError, match=told):
            await workers.prepare(source)
        ended = time.monotonic()
        assert (await workers.prepare(png_url(picture(1)))).views.shape[0] == 5
        assert time.monotonic() - ended < REPLACED_SECONDS
        assert pid not in workers.pids
        await wait_until(lambda: not psutil.pid_exists(pid))

    run(test, replace(ONE, media_seconds=0.2), hook)


def test_too_much_memory_is_told(hook: Path) -> None:
    async def test(workers: MediaWorkers) -> None:
        with pytest.raises(PictureError, match="takes more memory than one may"):
            await workers.prepare("data:large")

    run(test, ONE, hook)


def test_a_worker_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    async def test(workers: MediaWorkers) -> None:
        for pid in workers.pids:
            os.kill(pid, signal.SIGKILL)
        killed, since = set(workers.pids), time.monotonic()
        await wait_until(lambda: len(workers.pids) == CONFIG.media_workers and not killed & set(workers.pids))
        assert time.monotonic() - since < REPLACED_SECONDS
        assert (await workers.prepare(png_url(picture(1)))).views.shape[0] == 5

    run(test, CONFIG)


def test_a_worker_is_replaced_after_so_many_pictures() -> None:
    async def test(workers: MediaWorkers) -> None:
        seen = set()
        for number in range(7):
            seen.update(workers.pids)
            await workers.prepare(png_url(picture(number)))
            await wait_until(lambda: len(workers.pids) == 1)
        assert len(seen) == 3

    run(test, replace(ONE, media_pictures=3))


def test_who_stops_waiting_holds_nobody_up(hook: Path) -> None:
    async def test(workers: MediaWorkers) -> None:
        [pid] = workers.pids
        slow = "data:slow" + png_url(picture(1))
        asked = [asyncio.create_task(workers.prepare(slow)) for _ in range(20)]
        await asyncio.sleep(0)
        for number, task in enumerate(asked):
            if number % 3 != 1:  # the first is being opened, the others wait
                task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        for number, one in enumerate(done):
            assert isinstance(one, asyncio.CancelledError) == (number % 3 != 1)
        assert (await workers.prepare(png_url(picture(2)))).size == picture(2).size
        assert workers.pids == [pid]  # nobody was ended

    run(test, ONE, hook)


def test_the_queue_ends_somewhere(hook: Path) -> None:
    async def test(workers: MediaWorkers) -> None:
        slow = "data:slow" + png_url(picture(1))
        asked = [asyncio.create_task(workers.prepare(slow)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(MediaUnavailable, match="3 pictures wait to be opened"):
            await workers.prepare(slow)
        assert {one.size for one in await asyncio.gather(*asked)} == {picture(1).size}

    run(test, replace(ONE, max_running=1, max_waiting=2, max_pictures=1), hook)


def test_who_waits_when_the_server_ends_is_told(hook: Path) -> None:
    async def test(workers: MediaWorkers) -> None:
        slow = "data:slow" + png_url(picture(1))
        asked = [asyncio.create_task(workers.prepare(slow)) for _ in range(5)]
        await asyncio.sleep(0)
        await workers.close()
        for one in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(one, MediaUnavailable)
            assert "the server is ending" in str(one)
        with pytest.raises(MediaUnavailable, match="the server is ending"):
            await workers.prepare(slow)

    run(test, ONE, hook)


def test_workers_that_do_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "hook.py"
    broken.write_text("raise LookupError('what is missing')", encoding="utf-8")

    async def test() -> None:
        workers = MediaWorkers(CONFIG, SETTINGS, broken)
        with pytest.raises(MediaUnavailable, match="no media worker was started"):
            await workers.prepare(png_url(picture(1)))
        with pytest.raises(MediaUnavailable, match="no media worker starts: LookupError: what is missing"):
            await workers.start()
        assert workers.pids == []

    asyncio.run(test())


def test_workers_that_do_not_start_any_more(tmp_path: Path) -> None:
    """Nobody waits for what may never come; and once it comes, all is well."""
    path = tmp_path / "hook.py"
    path.write_text("", encoding="utf-8")

    async def test(workers: MediaWorkers) -> None:
        path.write_text("raise LookupError('what is missing')", encoding="utf-8")
        os.kill(workers.pids[0], signal.SIGKILL)
        await wait_until(lambda: not workers.pids)
        with pytest.raises(MediaUnavailable, match="no media worker starts: LookupError: what is missing"):
            await workers.prepare(png_url(picture(1)))
        path.write_text("", encoding="utf-8")
        await wait_until(lambda: bool(workers.pids))
        assert (await workers.prepare(png_url(picture(1)))).views.shape[0] == 5

    run(test, ONE, path)


def test_a_worker_has_nothing_of_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no key, no torch; it is polite, and deaf to what ends the server."""
    monkeypatch.setenv("FLASHSLOTH_SECRET", "a key")
    told = tmp_path / "modules"
    hook = tmp_path / "hook.py"
    hook.write_text(
        f"import os, sys\nopen({str(told)!r}, 'w').write(' '.join(sys.modules) + ' ' + ' '.join(os.environ))\n",
        encoding="utf-8",
    )

    async def test(workers: MediaWorkers) -> None:
        with (tmp_path / "open").open("w") as file:
            os.set_inheritable(file.fileno(), True)
            listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            [pid] = workers.pids
            os.kill(pid, signal.SIGKILL)
            await wait_until(lambda: bool(workers.pids) and workers.pids != [pid])
            worker = psutil.Process(workers.pids[0])
            assert not worker.net_connections("inet")
            assert file.name not in {one.path for one in worker.open_files()}
            listening.close()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            worker.send_signal(getattr(signal, name))
        await workers.prepare(png_url(picture(1)))
        assert workers.pids == [worker.pid]
        assert worker.nice() == psutil.Process().nice() + 5
        if sys.platform == "linux":
            assert worker.rlimit(psutil.RLIMIT_AS)[0] == ONE.media_memory

    run(test, ONE, hook)
    there = told.read_text(encoding="utf-8").split()
    assert "flashsloth.media.views" in there
    assert not {"torch", "transformers", "pydantic", "fastapi", "FLASHSLOTH_SECRET"} & set(there)


def test_workers_end_with_the_server(hook: Path) -> None:
    """However it ends; also one that is busy."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from flashsloth.media.views import ViewSettings\n"
        "from flashsloth.serving.config import ServeConfig\n"
        "from flashsloth.serving.media_workers import MediaWorkers\n"
        "async def main():\n"
        f"    workers = MediaWorkers(ServeConfig(media_seconds=0.5), ViewSettings(8), Path({str(hook)!r}))\n"
        "    await workers.start()\n"
        "    busy = asyncio.create_task(workers.prepare('data:stuck'))\n"
        "    await asyncio.sleep(0)\n"
        "    print(*workers.pids, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    pids = [int(pid) for pid in server.stdout.readline().split()]
    assert len(pids) == 2
    server.kill()
    server.communicate()
    end = time.monotonic() + PATIENCE
    while any(map(is_running, pids)):
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process does anything: an orphan that has ended may be kept by a system that asks nobody."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("host", ["http://example.org", "example.org/", "a b", "user@host", "host:port", ""])
def test_what_is_no_host_is_not_allowed(host: str) -> None:
    with pytest.raises(ServeError):
        MediaWorkers(ServeConfig(allow_media_hosts=(host,)), SETTINGS)


def test_large_sources_pass() -> None:
    """As much as a request may hold; and the loop goes on meanwhile."""

    async def test(workers: MediaWorkers) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), np.uint8)
        url = data_url(b"BM" + bytes(15_000_000))
        with pytest.raises(PictureError, match="BMP"):
            await workers.prepare(url)
        from PIL import Image

        made = await workers.prepare(png_url(Image.fromarray(noise)))
        assert made.size == (2200, 2200)
        assert base64.b64encode(made.digest)

    run(test, CONFIG)
