"""Answers OpenAI's batch lines by the server's own application, in this process and without a network.

In: lines. Out: for each what the server replies to such a request, whatever the address, as `flashsloth serve` would.
So a body means here what it means there. Requests are not in a hurry, and none is refused for too many of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flashsloth.evaluation.answerer import FlashSlothAnswerer
from flashsloth.serving.api_error import ApiError, failed, invalid
from flashsloth.serving.batch import Answered
from flashsloth.serving.batch_lines import BatchLine
from flashsloth.serving.config import MIB, ServeConfig
from flashsloth.serving.exchange import App

AHEAD = 16
"""Requests under way beside those that have a row: their pictures are made ready meanwhile."""
MOST_BYTES = 256 * MIB
"""Of bodies that are under way, but for a single one."""
DAY_SECONDS = 86_400.0
"""The deadline of each."""
MOST_WAITING = 1 << 20
"""Answers that may wait: some bodies ask for many."""
Reply = tuple[int, bytes]
"""Status and body."""
logger = logging.getLogger(__name__)


class RequestAnswerer:
    """Answers lines that are requests to the server.

    Args:
        model: who answers.
        config: what requests are held to, as in the server.
    """

    def __init__(self, model: FlashSlothAnswerer, config: ServeConfig) -> None:
        rows = model.sloth.config.max_rows
        self._model = model
        self._config = replace(config, max_running=rows, max_waiting=MOST_WAITING, deadline=DAY_SECONDS)

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        model = self._model.describe()
        del model["name"]  # of a folder, which may move
        limits = ("max_tokens", "max_pictures", "model_names", "allow_media_hosts")
        return {**model, "limits": {name: getattr(self._config, name) for name in limits}}

    def answers(self, lines: Iterator[BatchLine]) -> Iterator[Answered]:
        """See :class:`Answerer`.

        Raises:
            EngineError: if the engine has failed.
        """
        under_way: dict[Future[Reply], tuple[BatchLine, int]] = {}
        done: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        most, size, more = self._model.sloth.config.max_rows + AHEAD, 0, True
        with self._application() as (app, loop):
            while True:
                while more and len(under_way) < most and size < MOST_BYTES:
                    line = next(lines, None)
                    more = line is not None
                    if line is not None:
                        body = json.dumps(line.asked["body"]).encode()
                        reply = asyncio.run_coroutine_threadsafe(self._reply(app, line.asked["url"], body), loop)
                        under_way[reply] = line, len(body)
                        size += len(body)
                        reply.add_done_callback(done.put)
                if not under_way:
                    return
                reply = done.get()
                line, length = under_way.pop(reply)
                size -= length
                status, content = reply.result()
                self._model.sloth.engine_thread.check()  # where it has failed, nothing is this line's fault
                yield line, _row(line, status, json.loads(content))

    async def _reply(self, app: App, url: str, body: bytes) -> Reply:
        try:
            if len(body) > self._config.max_body_bytes:
                most = self._config.max_body_bytes
                raise ApiError(413, f"the request's body is larger than {most:,} bytes: send fewer or smaller pictures")
            if json.loads(body).get("stream"):
                raise invalid("stream is for clients that read along: leave it out in a batch", "stream")
            return await post(app, url, body)
        except ApiError as error:
            return error.status, json.dumps(error.body).encode()

    @contextmanager
    def _application(self) -> Iterator[tuple[App, asyncio.AbstractEventLoop]]:
        """The server's application, started in an event loop of a thread of its own; both end with the block."""
        from flashsloth.serving.app import create_app  # of an extra
        from flashsloth.serving.service import Service

        app = create_app(Service(self._model.sloth, self._config))
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def run() -> None:
            end = asyncio.Event()
            async with app.router.lifespan_context(app):
                started.set_result((asyncio.get_running_loop(), end))
                await end.wait()

        def work() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:  # told where it is waited for
                if started.done():
                    logger.exception("the application did not end well")
                else:
                    started.set_exception(error)

        thread = threading.Thread(target=work, name="flashsloth batch", daemon=True)
        thread.start()
        loop, end = started.result()
        try:
            yield app, loop
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()


async def post(app: App, path: str, body: bytes) -> Reply:
    """What an ASGI application replies to a POST of JSON."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": None,
        "server": None,
    }
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])
    status, content = 0, b""

    async def receive() -> dict[str, Any]:
        request = next(requests, None)
        return await asyncio.Future() if request is None else request  # this client never leaves

    async def send(message: Any) -> None:
        nonlocal status, content
        status = message.get("status", status)
        content += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:  # a fault of ours, which the application has told already, unless it could not
        logger.exception("a request of the batch could not be answered")
        if not status:
            error = failed("the request could not be answered")
            return error.status, json.dumps(error.body).encode()
    return status, content


def _row(line: BatchLine, status: int, body: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{line.digest.hex()}", "body": body}
    return {"id": f"batch_req_{line.key.hex()}", "custom_id": line.id, "response": response, "error": None}
