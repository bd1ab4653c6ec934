"""A server with OpenAI's interface on this machine that does what a test says: answers, refuses, stalls, breaks off."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Response:
    """What is sent.

    Attributes:
        text: of the answer, in a chat completion; `body` is sent as it is instead, if there is one.
        status, headers, body: of the response.
        wait, drip: seconds before it, and between the bytes of its body.
        announced: bytes that the header says, if they are others.
    """

    text: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait: float = 0.0
    drip: float = 0.0
    announced: int | None = None

    @property
    def content(self) -> bytes:
        """The body."""
        if self.body is not None:
            return self.body
        choice = {"message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        return json.dumps({"model": "stub-1", "choices": [choice], "usage": {"completion_tokens": 3}}).encode()


@dataclass
class Stub:
    """A running server.

    Attributes:
        url: of its interface.
        requests: bodies that came, in order.
        headers: of them.
        most_at_once: requests that were being answered at the same time.
    """

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[str, int], Response]) -> Iterator[Stub]:
    """A server that answers by (text of the last message, number of the request from 1)."""
    lock = threading.Lock()
    at_once = 0
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal at_once
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                stub.requests.append({"path": self.path, **body})
                stub.headers.append(dict(self.headers))
                number = len(stub.requests)
                at_once += 1
                stub.most_at_once = max(stub.most_at_once, at_once)
            try:
                self.respond(answer(body["messages"][-1]["content"], number))
            except OSError:
                pass  # nobody waits any more
            finally:
                with lock:
                    at_once -= 1

        def respond(self, response: Response) -> None:
            over.wait(response.wait)
            content = response.content
            self.send_response(response.status)
            length = len(content) if response.announced is None else response.announced
            for name, text in {"Content-Length": str(length), **response.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            if not response.drip:
                self.wfile.write(content)
                return
            for place in range(len(content)):
                self.wfile.write(content[place : place + 1])
                self.wfile.flush()
                if over.wait(response.drip):
                    return

        def do_GET(self) -> None:
            if "/models/" in self.path:  # as most servers, it knows nothing of FlashSloth's own
                self.respond(Response(status=404, body=b"{}"))
                return
            with lock:
                stub.requests.append({"path": self.path, "method": "GET"})
            self.respond(Response("0.5"))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub = Stub(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_address() -> str:
    """Where nobody listens."""
    with serving(lambda text, number: Response()) as stub:
        return stub.url
