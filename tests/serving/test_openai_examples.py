"""The example requests of OpenAI's specification, one by one: answered where built, else refused by name."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from openai_spec import Example, check, check_event, examples, needs_specification
from served import EXAMPLES, MODEL, events_of, post, refusal, serving

pytestmark = needs_specification

CHAT, RESPONSES = "/chat/completions", "/responses"
EXPECTED: dict[tuple[str, str], int | tuple[int, str]] = {
    (CHAT, "Default"): 200,
    (CHAT, "Image input"): 200,
    (CHAT, "Streaming"): 200,
    (CHAT, "Functions"): (400, "tools"),
    (CHAT, "Logprobs"): 200,
    (RESPONSES, "Text input"): 200,
    (RESPONSES, "Image input"): 200,
    (RESPONSES, "File input"): (400, "input[0].content[1].type"),
    (RESPONSES, "Web search"): (400, "tools"),
    (RESPONSES, "File search"): (400, "tools"),
    (RESPONSES, "Streaming"): 200,
    (RESPONSES, "Functions"): (400, "tools"),
    (RESPONSES, "Reasoning"): (400, "reasoning"),
}
"""What becomes of each example: a reply, or a refusal that names the parameter."""


def test_each_example_is_expected() -> None:
    assert {(one.path, one.title) for one in examples()} == set(EXPECTED)


@pytest.fixture(scope="module")
def picture_host() -> Iterator[str]:
    """Another server, with one picture under every path."""
    content = (EXAMPLES / "shapes.png").read_bytes()

    class Pictures(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def fetching_url(picture_host: str) -> Iterator[str]:
    with serving(allow_media_hosts=(picture_host,)) as address:
        yield f"{address}/v1"


@pytest.mark.parametrize("example", examples(), ids=lambda one: f"{one.path} {one.title}")
def test_examples_of_the_specification(example: Example, fetching_url: str, picture_host: str) -> None:
    """As they stand, but for the model's name and where pictures are."""
    text = json.dumps({**example.body, "model": MODEL})
    body = json.loads(text.replace("https://upload.wikimedia.org", f"http://{picture_host}"))
    reply = post(fetching_url + example.path, body)
    expected = EXPECTED[example.path, example.title]
    if expected != 200:
        check("ErrorResponse", reply.json())
        assert refusal(reply) == expected
        return
    assert reply.status_code == 200, reply.text
    is_chat = example.path == CHAT
    if not body.get("stream"):
        check("CreateChatCompletionResponse" if is_chat else "Response", reply.json())
        return
    for event in events_of(reply.text):
        check("CreateChatCompletionStreamResponse", event) if is_chat else check_event(event)
