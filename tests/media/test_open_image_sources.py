"""Where bytes come from: each way in, each way it goes wrong, and never more read than the limit."""

import base64
import io
import os
import socket
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from picture_files import corners, encoded

from flashsloth.media import MediaLimits, PictureError, data_url_bytes, open_picture
from flashsloth.media.limits import SHOWN_CHARACTERS

NOBODY = 65534
PNG = encoded(corners(), "PNG")
BASE64 = base64.b64encode(PNG).decode()
URL_HEAD = "data:image/png;base64,"


def refusal(source: Any, **options: Any) -> str:
    """The one line that refuses `source`."""
    with pytest.raises(PictureError) as caught:
        open_picture(source, **options)
    message = str(caught.value)
    assert message.isprintable(), message  # which no newline and no control character is
    assert len(message) < 500, message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "corners.png"
    file.write_bytes(PNG)
    return file


class PathOfItsOwn:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize(
    "source",
    [
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        memoryview(b"".join(bytes([byte, 0]) for byte in PNG))[::2],
        io.BytesIO(PNG),
        URL_HEAD + BASE64,
        URL_HEAD.upper() + BASE64,
        "data:;base64," + BASE64.rstrip("="),
        URL_HEAD + "\r\n".join(BASE64[i : i + 76] for i in range(0, len(BASE64), 76)) + "\n",
        URL_HEAD + urllib.parse.quote(BASE64, safe=""),
        "data:image/png," + urllib.parse.quote(PNG),
        "data:text/plain;charset=utf-8;base64," + BASE64,
    ],
    ids=lambda source: f"{type(source).__name__}-{len(source) if hasattr(source, '__len__') else 'file'}",
)
def test_encoded_pictures(source: Any) -> None:
    assert open_picture(source).tobytes() == corners().tobytes()


def test_paths(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = path.with_name("a link")
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    for source in (path, str(path), "corners.png", PathOfItsOwn(path), link):
        assert open_picture(source).tobytes() == corners().tobytes()
    with path.open("rb") as file:
        assert open_picture(file).tobytes() == corners().tobytes()


def test_a_missing_file_names_its_neighbours(path: Path) -> None:
    assert "'corners.png'" in refusal(path.with_name("corner.png"))
    assert "spelling" in refusal(path.with_name("zzz"))
    assert "nor is there a folder" in refusal(path.parent / "nowhere" / "corners.png")
    assert "no such file" in refusal(path / "inside a file.png")
    dangling = path.with_name("dangling")
    dangling.symlink_to("gone")
    assert "no such file" in refusal(dangling)


def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refusal(tmp_path / "loop")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "named pipe" in refusal(tmp_path / "pipe")
    assert "directory" in refusal(tmp_path)
    for device in ("/dev/zero", "/dev/null"):
        assert "a device" in refusal(device)
    # A socket's path is at most about a hundred bytes, which tmp_path may already be.
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        assert "a socket" in refusal(f"{folder}/socket")


def test_a_file_that_may_not_be_read(path: Path) -> None:
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # whom permissions do not bind
        os.seteuid(NOBODY)
    try:
        assert "permission" in refusal(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    "text", ["http://example.com/a.png", "HTTPS://example.com/a.png", "file:///a.png", "s3://a/b.png"]
)
def test_urls_are_not_fetched(text: str) -> None:
    assert "download the file first" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        BASE64 * 100,
        "x" * 100_000,
        "a\nb\x1b[31mred\r.png",
        "a\0b.png",
        "\udcff\u202e.png",
        "文" * 300,
        "a cat on a mat",
    ],
    ids=ascii,
)
def test_a_string_that_is_no_path_gets_a_short_answer(text: str) -> None:
    assert len(refusal(text)) < 3 * SHOWN_CHARACTERS


def test_base64_without_its_scheme_says_what_is_missing() -> None:
    assert URL_HEAD in refusal(BASE64 * 100)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png;base64",
        URL_HEAD,
        URL_HEAD + "****",
        URL_HEAD + "é",
        URL_HEAD + BASE64[:-5] + "!",
        URL_HEAD + "AAAAA",
        "data:image/png,plain text",
        "data:\x1b[31m;base64,!",
        "data:" + "x" * 100_000,
    ],
    ids=ascii,
)
def test_a_bad_data_url(url: str) -> None:
    refusal(url)


def test_data_url_bytes_takes_nothing_for_a_path(path: Path) -> None:
    assert data_url_bytes(URL_HEAD + BASE64) == PNG
    with pytest.raises(PictureError, match="not a data URL"):
        data_url_bytes(str(path))


@pytest.mark.parametrize("size", range(100, 104))
def test_the_limit_of_bytes_is_exact_for_every_source(size: int, tmp_path: Path) -> None:
    data = PNG[:60].ljust(size, b"\0")
    file = tmp_path / "a.png"
    file.write_bytes(data)
    url = base64.b64encode(data).decode()
    sources = [data, memoryview(data), file, io.BytesIO(data), URL_HEAD + url, URL_HEAD + url.rstrip("=") + "\n"]
    for source in [*sources, "data:," + urllib.parse.quote(data)]:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        assert "more than" in refusal(source, limits=MediaLimits(max_bytes=size - 1))
        if isinstance(source, io.BytesIO):
            source.seek(0)
        assert "more than" not in refusal(source, limits=MediaLimits(max_bytes=size))


class Endless(io.RawIOBase):
    """A file that never ends, a little at a time."""

    given = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "asked for everything"
        self.given += min(size, 1000)
        return b"\x89" * min(size, 1000)


def test_an_endless_file_is_read_to_the_limit_alone() -> None:
    file = Endless()
    assert "more than 12,345 bytes" in refusal(file, limits=MediaLimits(max_bytes=12_345))
    assert file.given == 12_346


def test_a_file_object_that_gives_little_at_a_time() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(7)

    assert open_picture(Slow(PNG)).tobytes() == corners().tobytes()


def test_file_objects_that_cannot_be_read(path: Path) -> None:
    assert "binary mode" in refusal(io.StringIO("text"))
    with path.open(encoding="latin-1") as text:
        assert '"rb"' in refusal(text)
    with path.open("rb") as closed:
        pass
    assert "closed" in refusal(closed)
    with path.open("ab") as write_only:
        assert "cannot be read" in refusal(write_only)
    finished = io.BytesIO(PNG)
    finished.read()
    assert "seek(0)" in refusal(finished)


@pytest.mark.parametrize("source", [None, 3, 3.5, True, object(), {"image": "a.png"}, [[1, 2], [3, 4]], io.BytesIO])
def test_what_is_no_picture_at_all(source: Any) -> None:
    assert "expected" in refusal(source)
