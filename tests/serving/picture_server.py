"""A server of pictures on loopback that does what servers should not; it counts who asks."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).with_name("pictures_example.pem")
"""Key and certificate, made for these tests, of a server that calls itself pictures.example."""
LARGE = 21 << 20
TRICKLE_SECONDS = 0.05


class PictureServer(ThreadingHTTPServer):
    """Attributes:
    asked: path and Host header of every request.
    """

    daemon_threads = True

    def __init__(self, picture: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.picture = picture
        self.asked: list[tuple[str, str]] = []
        self.ending = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up here."""


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        path = self.path.partition("?")[0]
        if path.startswith("/redirect/"):
            self._reply(
                int(path.rpartition("/")[2]), {"Location": self.headers.get("X", "/a.png"), "Content-Length": "0"}
            )
        elif path == "/missing":
            self._reply(404, {"Content-Length": "0"})
        elif path == "/declared-large":
            self._reply(200, {"Content-Length": str(LARGE)})
        elif path == "/large":
            self._reply(200, {})
            for _ in range(LARGE >> 16):
                self.wfile.write(bytes(1 << 16))
        elif path == "/early":
            self._reply(200, {"Content-Length": str(len(self.server.picture) + 1)}, self.server.picture)
        elif path == "/slow-head":
            self._trickle(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)
        elif path == "/slow-body":
            self._reply(200, {})
            self._trickle(bytes(10_000))
        elif path == "/silent":
            self.server.ending.wait()
        elif path == "/nonsense":
            self.wfile.write(b"\x00\xff" * 100)
        elif path == "/text":
            self._reply(200, {}, b"no picture at all")
        elif path == "/chunked":
            self._reply(200, {"Transfer-Encoding": "chunked"})
            for start in range(0, len(self.server.picture), 100):
                part = self.server.picture[start : start + 100]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self._reply(200, {"Content-Length": str(len(self.server.picture))}, self.server.picture)

    def _reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _trickle(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            if self.server.ending.wait(TRICKLE_SECONDS):
                return

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    protocol_version = "HTTP/1.1"


@contextmanager
def picture_server(picture: bytes, *, tls: bool = False) -> Iterator[PictureServer]:
    """A server, until the block ends."""
    server = PictureServer(picture)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
