"""S3: pictures that are made to cost much or to break what opens them: refused or answered, and the server goes on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest
from picture_files import PNG_GREY, bomb, corners, damaged, encoded, exif_with_orientation, packed_zeros, png
from picture_urls import data_url
from PIL import Image, features
from running import Running, running, wait_for

import flashsloth
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.service import Service

REPLACED_SECONDS = 5.0
MOST_GROWTH = 100 << 20
AT_ONCE = 4
DAMAGED, DAMAGED_SLOW = 240, 6000
SCANS = 100


@dataclass
class Server:
    """A server, and what is measured of it."""

    running: Running
    service: Service

    def ask(self, url: str) -> int:
        """The status of a question about a picture."""
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
        body = {"model": "nano", "max_tokens": 1, "messages": [{"role": "user", "content": parts}]}
        reply = self.running.post("/v1/chat/completions", body)
        if reply.status != 200:
            assert reply.error["code"] == "invalid_image", reply.body[:300]
            assert reply.error["message"].isprintable()
        return reply.status

    @property
    def pids(self) -> list[int]:
        """Of the media workers."""
        return self.service.pictures._workers.pids


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    service = Service(flashsloth.load(picture_cache=0), ServeConfig())
    with running(create_app(service)) as one:
        yield Server(one, service)


def many_scans(scans: int) -> bytes:
    """A JPEG of 16 megapixels, its last scan over and over: as many as are allowed, each of which is decoded."""
    data = encoded(Image.new("RGB", (4096, 4096), (90, 120, 150)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def hostile_pictures() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """(name, file, the statuses that are right)."""
    for kind in ("PNG", "JPEG", "GIF", "BMP"):
        yield f"a bomb in {kind}", bomb(kind), (400,)
    yield "13,000 x 13,000", png(13_000, 13_000, 1, PNG_GREY, bytes((1 + 1625) * 13_000)), (400,)
    yield "as large as allowed", png(8192, 6144, 1, PNG_GREY, bytes((1 + 1024) * 6144)), (200,)
    yield "a hundred scans", many_scans(SCANS), (200, 400)
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        head = b"key\0\x01\0\0\0" if kind == b"iTXt" else b"key\0\0"
        yield (
            f"a {kind.decode()} that unpacks to much",
            png(1, 1, 8, PNG_GREY, b"\0\0", (kind, head + packed_zeros(256))),
            (400,),
        )
    yield "pixels that unpack to much", png(8, 8, 8, PNG_GREY, packed_zeros(256)), (200, 400)
    frames = [Image.new("L", (64, 64), number % 256) for number in range(2000)]
    yield "thousands of frames", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), (200,)


def test_what_costs_much_is_refused_or_answered(server: Server) -> None:
    good = data_url(encoded(corners(), "PNG"))
    assert server.ask(good) == 200
    cases = [(name, data_url(data), right) for name, data, right in hostile_pictures()]
    process = psutil.Process()
    before = process.memory_info().rss
    for name, url, right in cases:
        assert server.ask(url) in right, name
        asked = time.monotonic()
        wait_for(lambda: len(server.pids) == 2)
        assert time.monotonic() - asked < REPLACED_SECONDS, name
        assert process.memory_info().rss - before < MOST_GROWTH, name
    assert server.ask(good) == 200


def test_what_takes_too_long_is_refused_and_the_next_picture_opened() -> None:
    service = Service(flashsloth.load(picture_cache=0), ServeConfig(media_seconds=0.3, media_workers=1))
    with running(create_app(service)) as one:
        server, good = Server(one, service), data_url(encoded(corners(), "PNG"))
        assert server.ask(good) == 200
        [pid] = server.pids
        assert server.ask(data_url(many_scans(SCANS))) == 400
        assert server.ask(good) == 200
        assert pid not in server.pids


FILES = {
    "png": encoded(corners(), "PNG", exif=exif_with_orientation(6)),
    "png, palette": encoded(corners().convert("P"), "PNG", transparency=3),
    "jpeg": encoded(corners(), "JPEG", exif=exif_with_orientation(6)),
    "jpeg, progressive": encoded(corners(), "JPEG", progressive=True),
    "webp": encoded(corners(), "WEBP"),
    "gif": encoded(corners(), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    "bmp": encoded(corners(), "BMP"),
    "tiff, lzw": encoded(corners(), "TIFF", compression="tiff_lzw"),
    "tiff, jpeg": encoded(corners(), "TIFF", compression="jpeg"),
}
if features.check("avif"):
    FILES["avif"] = encoded(corners(), "AVIF")


@pytest.mark.parametrize("count", [DAMAGED, pytest.param(DAMAGED_SLOW, marks=pytest.mark.slow)])
def test_damaged_pictures(server: Server, count: int) -> None:
    chance = random.Random(count)
    urls = [data_url(damaged(FILES[chance.choice(list(FILES))], chance)) for _ in range(count)]
    assert [server.ask(data_url(data)) for data in FILES.values()] == [200] * len(FILES)
    process = psutil.Process()
    before = process.memory_info().rss
    with ThreadPoolExecutor(AT_ONCE) as clients:
        statuses = Counter(clients.map(server.ask, urls))
    assert set(statuses) == {200, 400}  # some damage does no harm
    assert process.memory_info().rss - before < MOST_GROWTH
    asked = time.monotonic()
    wait_for(lambda: len(server.pids) == 2)
    assert time.monotonic() - asked < REPLACED_SECONDS
    assert server.ask(data_url(FILES["png"])) == 200
