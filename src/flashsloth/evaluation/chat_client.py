"""Asks a server with OpenAI's chat interface, over HTTP, and takes nothing for an answer that is none.

In: messages. Out: :class:`ChatReply`, or a :class:`ServerError` that says what came instead. No redirect is followed
(the key would go with it); 429 and what passes by itself are tried again, after as long as the server asks for if that
is bearable. The key comes from an environment variable, and stands in no message.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.task import EvaluationError

PATH = "/chat/completions"
"""Below an interface's address."""
PASSING = (408, 429, 500, 502, 503, 504)
"""Status codes after which the same may go well."""
FOR_ALL = (401, 403, 404, 405)
"""Status codes that every other question would get too: the key, the address or the model is wrong."""
MOST_BYTES = 16 << 20
"""Of a reply."""
PIECE_BYTES = 1 << 16
FACTS_SECONDS = 10.0
OWN = "flashsloth"
"""Under this name FlashSloth's own server takes and says what no other does; its models say so, too."""
SHOWN = 200
"""Characters of a server's own words that an error quotes."""


class ServerError(FlashSlothError, OSError):
    """A server gave no answer.

    Attributes:
        is_for_all: whether other questions would end the same.
    """

    def __init__(self, message: str, is_for_all: bool = False) -> None:
        super().__init__(message)
        self.is_for_all = is_for_all


@dataclass(frozen=True)
class ChatReply:
    """What a server answered.

    Attributes:
        text: not stripped.
        tokens: it was made of; None where the server does not say.
        finish_reason: why it ended.
        model: that answered, by the server's own word; empty where it does not say.
    """

    text: str
    tokens: int | None
    finish_reason: str
    model: str


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        seconds: for a reply.
        tries: of a question, in all.
        first_wait: seconds between the first two; doubled each time, unless the server says how long.
        longest_wait: that a server may ask for, in seconds.
    """

    seconds: float = 300.0
    tries: int = 4
    first_wait: float = 1.0
    longest_wait: float = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Not followed: it ends as the error that its status code is."""


class ChatClient:
    """One server, one model; may be asked from several threads.

    Args:
        url: of the interface, such as http://127.0.0.1:8000/v1.
        model: its name there.
        key_variable: the environment variable that holds the key; without it none is sent.
        patience: how long to wait.

    Raises:
        EvaluationError: where no server can have that address, or the key is no key.
    """

    def __init__(self, url: str, model: str, key_variable: str, patience: Patience | None = None) -> None:
        self.url, self.model = _checked(url), model
        self._patience = Patience() if patience is None else patience
        self._key_variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise EvaluationError(f"{key_variable} holds characters that no key has: set it to the key alone")
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._is_closed = threading.Event()

    def close(self) -> None:
        """Let nobody wait for another try."""
        self._is_closed.set()

    def chat(self, messages: list[dict[str, Any]], **options: Any) -> ChatReply:
        """The answer to messages.

        Args:
            messages: as OpenAI's interface has them.
            options: what else the request says, such as max_tokens and temperature.

        Raises:
            ServerError: where there is none.
        """
        body = json.dumps({"model": self.model, "messages": messages, **options}).encode()
        wait = self._patience.first_wait
        for number in range(1, self._patience.tries + 1):
            try:
                return self._read(self._post(body))
            except _PassingError as error:
                pause = wait if error.wait is None else error.wait
                if pause > self._patience.longest_wait:
                    raise ServerError(f"{error}, and asks to wait {pause:,.0f} s: ask again then") from error
                if number == self._patience.tries or self._is_closed.wait(pause):
                    raise ServerError(f"{error} ({number} tries)", error.is_for_all) from error
                wait *= 2
        raise AssertionError("a server is asked at least once")

    def model_facts(self) -> dict[str, Any]:
        """What a server says of its model; nothing where it does not say."""
        path = f"{self.url}/models/{quote(self.model, safe='/')}"
        try:
            with self._opener.open(self._request(path), timeout=min(FACTS_SECONDS, self._patience.seconds)) as response:
                found = json.loads(response.read(PIECE_BYTES))
        except (OSError, http.client.HTTPException, ValueError, RecursionError):  # few servers are asked for that
            return {}
        return found if isinstance(found, dict) else {}

    def _request(self, url: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Accept": "application/json", **({} if body is None else {"Content-Type": "application/json"})}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(url, body, headers)

    def _post(self, body: bytes) -> bytes:
        request = self._request(self.url + PATH, body)
        until = time.monotonic() + self._patience.seconds
        try:
            with self._opener.open(request, timeout=self._patience.seconds) as response:
                return self._content(response, until)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from error
        except urllib.error.URLError as error:  # no connection; a timeout of one too
            is_late = isinstance(error.reason, TimeoutError)
            raise _PassingError(f"{self.url} cannot be reached ({error.reason})", is_for_all=not is_late) from error
        except TimeoutError as error:
            raise _PassingError(f"{self.url} said nothing for {self._patience.seconds:g} s") from error
        except (http.client.HTTPException, OSError) as error:
            raise _PassingError(f"{self.url} broke off ({type(error).__name__})") from error

    def _content(self, response: Any, until: float) -> bytes:
        found = bytearray()
        while piece := response.read1(PIECE_BYTES):
            found += piece
            if len(found) > MOST_BYTES:
                raise ServerError(f"{self.url} sent more than {MOST_BYTES >> 20} MiB for one answer")
            if time.monotonic() > until:
                raise _PassingError(f"{self.url} was not done after {self._patience.seconds:g} s")
        expected = response.headers.get("Content-Length")
        if expected is not None and expected.isdecimal() and len(found) < int(expected):
            raise _PassingError(f"{self.url} broke off after {len(found):,} of {int(expected):,} bytes")
        return bytes(found)

    def _refused(self, error: urllib.error.HTTPError) -> ServerError | _PassingError:
        """What a status code other than 2xx means."""
        code = error.code
        if 300 <= code < 400:
            target = self._shown(error.headers.get("Location", "nowhere"))
            return ServerError(f"{self.url} redirects to {target}, which is not followed: give the right address", True)
        try:
            words = self._shown(error.read(PIECE_BYTES).decode(errors="replace"))
        except (http.client.HTTPException, OSError):
            words = "it broke off"
        message = f"{self.url} answers {code}: {words}"
        if code in PASSING:
            return _PassingError(message, wait=_seconds(error.headers.get("Retry-After")))
        if code in (401, 403):
            message += f"; the key is read from {self._key_variable}, which is {'' if self._key else 'not '}set"
        return ServerError(message, code in FOR_ALL)

    def _read(self, content: bytes) -> ChatReply:
        try:
            found = json.loads(content)
            [choice, *_] = found["choices"]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
            text = (choice.get(OWN) or {}).get("raw_text", text)
            tokens = (found.get("usage") or {}).get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            shown = self._shown(content.decode(errors="replace"))
            raise ServerError(
                f"{self.url} answers with something else than a chat completion: {shown}", True
            ) from error
        if not isinstance(text, str):
            raise ServerError(f"{self.url} answers without a text (finish_reason {self._shown(str(reason))})")
        return ChatReply(text, tokens if isinstance(tokens, int) else None, str(reason), str(found.get("model") or ""))

    def _shown(self, text: str) -> str:
        """A server's own words, in one short line without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))[:SHOWN]


class _PassingError(Exception):
    """What may go well another time."""

    def __init__(self, message: str, wait: float | None = None, is_for_all: bool = False) -> None:
        super().__init__(message)
        self.wait, self.is_for_all = wait, is_for_all


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After header; None without one, or where it names a date."""
    try:
        found = float(retry_after or "")
    except ValueError:
        return None
    return found if found >= 0 else None


def _checked(url: str) -> str:
    """An interface's address, without what stands below it."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_good = False
    if not is_good or parts.query or parts.fragment or "@" in parts.netloc or not url.isprintable() or " " in url:
        expected = "expected one such as http://127.0.0.1:8000/v1, without a name, a password or a ?"
        raise EvaluationError(f"{url.rpartition('@')[2].partition('?')[0]!r} is no address of a server; {expected}")
    return url.rstrip("/").removesuffix(PATH)
