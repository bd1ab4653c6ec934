"""A server that misbehaves is named in one line; only what passes is tried again; the key goes nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import stub_server
from stub_server import Response, serving

from flashsloth.evaluation.chat_client import ChatClient, ChatReply, Patience, ServerError
from flashsloth.evaluation.task import EvaluationError

KEY = "TEST_JUDGE_KEY"
SECRET = "sk-secret-0123456789"
HASTY = Patience(seconds=60, tries=3, first_wait=0.01, longest_wait=1.0)
IMPATIENT = replace(HASTY, seconds=0.3)


def client(url: str, patience: Patience = HASTY) -> ChatClient:
    return ChatClient(url, "judge", KEY, patience)


def ask(url: str, patience: Patience = HASTY) -> ChatReply:
    return client(url, patience).chat([{"role": "user", "content": "Hi"}], max_tokens=3, temperature=0.0)


def failure(answer: Callable[[str, int], Response], patience: Patience = HASTY) -> tuple[ServerError, int]:
    """(what is raised, requests that came)."""
    with serving(answer) as stub, pytest.raises(ServerError) as found:
        ask(stub.url, patience)
    message = str(found.value)
    assert "\n" not in message
    assert SECRET not in message
    assert stub.url in message
    return found.value, len(stub.requests)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


def test_an_answer() -> None:
    with serving(lambda text, number: Response(f" {text}!\n")) as stub:
        assert ask(stub.url) == ChatReply(" Hi!\n", 3, "stop", "stub-1")
        assert ask(f"{stub.url}/chat/completions/").text == " Hi!\n"
    [one, other] = stub.requests
    assert (
        one
        == other
        == {
            "path": "/v1/chat/completions",
            "model": "judge",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 3,
            "temperature": 0.0,
        }
    )
    assert stub.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    with serving(lambda text, number: Response("Hi")) as stub:
        ask(stub.url)
    assert "Authorization" not in stub.headers[0]


def test_a_wrong_key() -> None:
    error, asked = failure(lambda text, number: Response(status=401, body=f"Wrong key:\n{SECRET}.".encode()))
    assert (asked, error.is_for_all) == (1, True)
    assert "answers 401: Wrong key: ***." in str(error)
    assert f"the key is read from {KEY}, which is set" in str(error)


def test_a_bad_request_is_no_matter_of_others() -> None:
    error, asked = failure(lambda text, number: Response(status=400, body=b'{"error": "too long"}'))
    assert (asked, error.is_for_all) == (1, False)
    assert 'answers 400: {"error": "too long"}' in str(error)


def test_a_redirect_is_not_followed() -> None:
    with serving(lambda text, number: Response("0.5")) as other:
        target = f"{other.url}/elsewhere"
        for status in (301, 302, 303, 307, 308):
            error, asked = failure(
                lambda text, number, status=status: Response(status=status, headers={"Location": target})  # type: ignore[misc]
            )
            assert (asked, error.is_for_all) == (1, True)
            assert f"redirects to {target}, which is not followed" in str(error)
    assert other.requests == []


def test_a_limit_is_waited_for() -> None:
    def limited(text: str, number: int) -> Response:
        return Response("Hi") if number == 2 else Response(status=429, headers={"Retry-After": "0.3"})

    with serving(limited) as stub:
        before = time.monotonic()
        assert ask(stub.url).text == "Hi"
        assert time.monotonic() - before >= 0.3
        assert len(stub.requests) == 2


@pytest.mark.parametrize("retry_after", ["2", "1e9", "Fri, 31 Dec 2027 23:59:59 GMT", "-1", "nan", "soon"])
def test_a_limit_that_is_too_long(retry_after: str) -> None:
    error, asked = failure(lambda text, number: Response(status=429, headers={"Retry-After": retry_after}))
    assert not error.is_for_all
    is_long = retry_after in ("2", "1e9")
    assert asked == (1 if is_long else 3)
    assert ("asks to wait" in str(error)) == is_long


def test_a_stalling_server() -> None:
    error, asked = failure(lambda text, number: Response("Hi", wait=5.0), IMPATIENT)
    assert (asked, error.is_for_all) == (3, False)
    assert "said nothing for 0.3 s (3 tries)" in str(error)


def test_a_dripping_server() -> None:
    """It is never silent for long, and never done."""
    before = time.monotonic()
    error, asked = failure(lambda text, number: Response("Hi" * 500, drip=0.02), IMPATIENT)
    assert asked == 3
    assert "was not done after 0.3 s" in str(error)
    assert time.monotonic() - before < 20  # a whole reply would take that long


def test_a_reply_that_breaks_off() -> None:
    error, asked = failure(lambda text, number: Response(body=b'{"choices": [', announced=500))
    assert (asked, error.is_for_all) == (3, False)
    assert "broke off after 13 of 500 bytes (3 tries)" in str(error)


def test_a_server_in_trouble_is_asked_again() -> None:
    with serving(lambda text, number: Response("Hi") if number == 3 else Response(status=503, body=b"busy")) as stub:
        assert ask(stub.url).text == "Hi"


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b"[]", b'{"choices": []}', b'{"choices": 3}', b"\xff", b"null", b"[" * 99_999]
)
def test_something_else_than_a_completion(body: bytes) -> None:
    error, asked = failure(lambda text, number: Response(body=body))
    assert (asked, error.is_for_all) == (1, True)
    assert "answers with something else than a chat completion" in str(error)


def test_an_answer_without_a_text() -> None:
    error, _ = failure(lambda text, number: Response(None))
    assert not error.is_for_all
    assert "answers without a text" in str(error)


def test_nobody_listens() -> None:
    url = stub_server.closed_address()
    with pytest.raises(ServerError, match="cannot be reached") as found:
        ask(url)
    assert found.value.is_for_all


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://h/v1", "http://", "http://u:secret@h/v1", "http://h/v1?k=secret", "http://h:0/v1",
            "http://h:99999/v1", "http://h/ v1", "http://h/v1#a", "file:///etc/passwd", "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(EvaluationError, match="is no address of a server") as found:
        client(url)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("text", ["sk-a\nHost: b", "ключ"])
def test_what_is_no_key(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, text)
    with pytest.raises(EvaluationError, match=f"{KEY} holds characters that no key has") as found:
        client("http://127.0.0.1:1/v1")
    assert text not in str(found.value)
