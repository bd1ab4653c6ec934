"""S6: pictures from other servers come from allowed hosts alone, and what a name leads to is asked once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from picture_server import CERTIFICATE, PictureServer, closed_port, picture_server
from picture_urls import png_bytes
from tiny import picture

from flashsloth.media import PictureError
from flashsloth.media.views import ViewSettings, digest
from flashsloth.serving import media_fetch
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.media_workers import MediaWorkers

PATIENCE = 60.0
SECONDS = 20.0
"""To fetch in: more than a busy machine needs."""
SHORT_SECONDS = 0.3
ALLOWED = "pictures.example"
PUBLIC = "203.0.113.7"
HOOK = """
import itertools, os, socket, ssl
from flashsloth.serving import media_fetch
from flashsloth.serving.media_fetch import Address

log = os.open({log!r}, os.O_WRONLY)
answers = itertools.cycle({answers!r})

def resolve(host, port):
    os.write(log, f"resolve {{host}} {{port}}\\n".encode())
    ip = next(answers)
    return Address(int(socket.AF_INET6 if ":" in ip else socket.AF_INET), ip)

def connect(address, port, seconds):
    os.write(log, f"connect {{address.ip}} {{port}}\\n".encode())
    return socket.create_connection(("127.0.0.1", {port}), seconds)

media_fetch.resolve, media_fetch.connect = resolve, connect
if {certificate!r}:
    media_fetch.tls_context = lambda: ssl.create_default_context(cafile={certificate!r})
"""
"""Whatever a worker looks up and connects to is written down, and ends at our own server."""

FORMS = [
    *Path(__file__).with_name("strange_addresses.txt").read_text(encoding="utf-8").splitlines(),
    "",
    " ",
    " http://127.0.0.1/",
    "\nhttp://127.0.0.1/",
    "http://pictures.example/ HTTP/1.1\r\nHost: 127.0.0.1",
    "http://pictures.example\r\n.test/",
    "http://pictures.example/\r\nX: y",
    "http://pictures.example/a b",
    "http://pictures.example\x00.test/",
    "http://pictures.example/\x00",
    "http://pictures.example\t/",
    "http://pic\ttures.example/",
    "http://pictures.example/\u2028",
    "http://pictures.example/" + "a" * 10_000,
    "\ud800http://127.0.0.1/",
]
"""Forms of addresses of which none is that of an allowed host."""
FETCHED = [
    "http://pictures.example/a.png",
    "HTTP://PICTURES.example/a.png",
    "http://pictures.example:80/a.png",
    "http://pictures.example",
    "http://pictures.example?a=http://127.0.0.1/",
    "http://pictures.example/@127.0.0.1/a.png",
    "http://pictures.example/../../etc/passwd",
    "http://pictures.example/a.png#@127.0.0.1",
]
"""Of that host, however they look."""


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with picture_server(png_bytes(picture(1))) as one:
        yield one


class Recorded:
    """A worker whose resolver and connections are written down.

    Args:
        folder: for its pipe.
        port: where connections lead.
        answers: of the resolver, one after the other, over and over.
        allowed: hosts.
        certificate: that is believed, beside none.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        answers: Sequence[str] = (PUBLIC,),
        allowed: Sequence[str] = (),
        certificate: Path | str = "",
    ) -> None:
        pipe, self.hook = folder / "log", folder / "hook.py"
        os.mkfifo(pipe)
        self._read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        values = {"log": str(pipe), "answers": list(answers), "port": port, "certificate": str(certificate)}
        self.hook.write_text(HOOK.format(**values), encoding="utf-8")
        self._config = ServeConfig(media_workers=1, media_seconds=SECONDS, allow_media_hosts=tuple(allowed))

    def ask(self, urls: Sequence[str]) -> list[str | bytes]:
        """Of each address the picture's digest, or why there is none."""
        return asyncio.run(self._ask(urls))

    async def _ask(self, urls: Sequence[str]) -> list[str | bytes]:
        workers = MediaWorkers(self._config, ViewSettings(8), self.hook)
        await workers.start()
        [pid] = workers.pids
        found: list[str | bytes] = []
        try:
            for url in urls:
                async with asyncio.timeout(PATIENCE):
                    try:
                        found.append((await workers.prepare(url)).digest)
                    except PictureError as error:
                        found.append(str(error))
            assert workers.pids == [pid]  # no address has ended it
        finally:
            await workers.close()
        return found

    @property
    def log(self) -> list[str]:
        """What was looked up and connected to since this was asked last."""
        try:
            return os.read(self._read, 1 << 20).decode().splitlines()
        except BlockingIOError:  # a pipe that is open at the other end, and empty
            return []


def test_nothing_is_looked_up_by_default(server: PictureServer, tmp_path: Path) -> None:
    recorded, before = Recorded(tmp_path, server.port), len(server.asked)
    urls = [form.replace("{port}", str(server.port)) for form in FORMS] + FETCHED
    assert len(set(urls)) >= 130
    for url, told in zip(urls, recorded.ask(urls), strict=True):
        assert isinstance(told, str), url
        assert "--allow-media-host" in told, url
        assert told.isprintable(), url
        assert len(told) < 400
    assert recorded.log == []
    assert len(server.asked) == before


def test_only_an_allowed_host_is_looked_up_and_once(server: PictureServer, tmp_path: Path) -> None:
    recorded, before = Recorded(tmp_path, server.port, allowed=[ALLOWED]), len(server.asked)
    urls = [form.replace("{port}", str(server.port)) for form in FORMS]
    for url, told in zip(urls, recorded.ask(urls), strict=True):
        assert isinstance(told, str), url
    assert recorded.log == []
    assert len(server.asked) == before
    assert recorded.ask(FETCHED) == [digest(picture(1))] * len(FETCHED)
    assert recorded.log == [f"resolve {ALLOWED} 80", f"connect {PUBLIC} 80"] * len(FETCHED)
    assert {host for _, host in server.asked[before:]} == {ALLOWED}


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_not_followed(server: PictureServer, tmp_path: Path, status: int) -> None:
    recorded = Recorded(tmp_path, server.port, allowed=[ALLOWED])
    before = len(server.asked)
    [told] = recorded.ask([f"http://{ALLOWED}/redirect/{status}"])
    assert f"a redirect (status {status}), which is not followed" in str(told)
    assert recorded.log == [f"resolve {ALLOWED} 80", f"connect {PUBLIC} 80"]
    assert len(server.asked) == before + 1


def test_a_name_that_leads_elsewhere_the_second_time(server: PictureServer, tmp_path: Path) -> None:
    """The connection goes to the address that was checked; every fetch asks once."""
    recorded = Recorded(tmp_path, server.port, answers=[PUBLIC, "127.0.0.1"], allowed=[ALLOWED])
    good, bad, again = recorded.ask([f"http://{ALLOWED}/a.png"] * 3)
    assert good == again == digest(picture(1))
    assert "its host's address is 127.0.0.1, which is no other server's" in str(bad)
    resolved, connected = f"resolve {ALLOWED} 80", f"connect {PUBLIC} 80"
    assert recorded.log == [resolved, connected, resolved, resolved, connected]


FORBIDDEN = ["127.0.0.1", "127.8.9.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "::", "::ffff:127.0.0.1"]
FORBIDDEN += ["::ffff:169.254.169.254", "fe80::1%lo", "ff02::1"]


def test_addresses_that_no_other_server_has(server: PictureServer, tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, server.port, answers=FORBIDDEN, allowed=[ALLOWED])
    for told in recorded.ask([f"http://{ALLOWED}/a.png"] * len(FORBIDDEN)):
        assert "which is no other server's" in str(told)
    assert recorded.log == [f"resolve {ALLOWED} 80"] * len(FORBIDDEN)


def test_certificates_are_verified_with_the_name(tmp_path: Path) -> None:
    with picture_server(png_bytes(picture(1)), tls=True) as server:
        for name, certificate, allowed in (
            ("a", CERTIFICATE, ALLOWED),
            ("b", "", ALLOWED),
            ("c", CERTIFICATE, "b.example"),
        ):
            folder = tmp_path / name
            folder.mkdir()
            recorded = Recorded(folder, server.port, allowed=[allowed], certificate=certificate)
            [told] = recorded.ask([f"https://{allowed}/a.png"])
            assert recorded.log == [f"resolve {allowed} 443", f"connect {PUBLIC} 443"]
            if name == "a":
                assert told == digest(picture(1))
            else:
                assert "certificate verify failed" in str(told).lower()
        assert len(server.asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_from_a_real_server_by_a_real_resolver(server: PictureServer, host: str) -> None:
    async def test() -> None:
        allowed = f"{host.upper()}:{server.port}"
        workers = MediaWorkers(ServeConfig(media_workers=1, allow_media_hosts=(allowed,)), ViewSettings(8))
        await workers.start()
        try:
            url = f"http://{host}:{server.port}/a.png"
            for _ in range(2):
                assert (await workers.prepare(url)).digest == digest(picture(1))
            assert workers.known(url) is None  # it may be another picture the next time
            with pytest.raises(PictureError, match="is not fetched"):
                await workers.prepare(f"http://{host}:{closed_port()}/a.png")
        finally:
            await workers.close()

    before = len(server.asked)
    asyncio.run(test())
    assert server.asked[before:] == [("/a.png", f"{host}:{server.port}")] * 2


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/missing", "status 404; expected 200"),
        ("/declared-large", "more than 20,971,520 bytes"),
        ("/large", "more than 20,971,520 bytes"),
        ("/early", "ended 1 bytes early"),
        ("/nonsense", "cannot be fetched"),
    ],
)
def test_what_a_server_does_wrong_is_told(server: PictureServer, path: str, told: str) -> None:
    place = f"127.0.0.1:{server.port}"
    with pytest.raises(PictureError, match=told) as refusal:
        media_fetch.fetch(f"http://{place}{path}", [place], SECONDS)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("path", ["/slow-head", "/slow-body", "/silent"])
def test_all_of_it_has_one_limit_of_time(server: PictureServer, path: str) -> None:
    """A byte every now and then prolongs nothing."""
    place = f"127.0.0.1:{server.port}"
    with pytest.raises(PictureError, match=r"no picture came within 0\.3 s"):
        media_fetch.fetch(f"http://{place}{path}", [place], SHORT_SECONDS)


def test_a_server_that_is_not_there() -> None:
    place = f"127.0.0.1:{closed_port()}"
    with pytest.raises(PictureError, match=r"cannot be fetched .*refused"):
        media_fetch.fetch(f"http://{place}/", [place], SECONDS)


@pytest.mark.parametrize("path", ["/a.png", "/chunked"])
def test_bytes_come_whole(server: PictureServer, path: str) -> None:
    place = f"127.0.0.1:{server.port}"
    assert media_fetch.fetch(f"http://{place}{path}", [place], SECONDS) == server.picture
