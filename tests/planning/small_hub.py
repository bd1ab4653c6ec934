"""A hub of one model on this machine: as much of the protocol as huggingface_hub needs to fetch files, ranges too."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0" * 40
RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class SmallHub(ThreadingHTTPServer):
    """Serves the files of a folder as the model `name`; `sent` says how many bytes of each went out."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.name = folder, name
        self.sent: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: SmallHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        name = self.server.name
        files = sorted(file.name for file in self.server.folder.iterdir())
        if path.startswith(f"/api/models/{name}/tree/"):
            entries = [{"type": "file", "path": f, "size": (self.server.folder / f).stat().st_size} for f in files]
            self._send(200, json.dumps([{**entry, "oid": _etag(entry["path"])} for entry in entries]).encode(), body)
        elif path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
            about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            self._send(200, json.dumps(about).encode(), body)
        elif path.startswith(f"/{name}/resolve/") and path.rsplit("/", 1)[1] in files:
            self._send_file(path.rsplit("/", 1)[1], body)
        else:
            self._send(404, b"", body, **{"X-Error-Code": "EntryNotFound" if name in path else "RepoNotFound"})

    def _send_file(self, name: str, body: bool) -> None:
        content = (self.server.folder / name).read_bytes()
        status, headers = 200, {"ETag": f'"{_etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if match := RANGE.fullmatch(self.headers.get("Range", "")):
            start, last = int(match[1]), min(int(match[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
            status, content = 206, content[start : last + 1]
        if body:
            self.server.sent[name] = self.server.sent.get(name, 0) + len(content)
        self._send(status, content, body, **headers)

    def _send(self, status: int, content: bytes, body: bool, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def small_hub(folder: Path, name: str) -> Iterator[SmallHub]:
    """Serve while the block runs."""
    server = SmallHub(folder, name)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()
