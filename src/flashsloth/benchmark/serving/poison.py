"""P1 and P2: requests that must fail, and neighbours that must not notice.

In: a server whose faults can be asked for (`breakable_server.py`). Out: whether all others have their own answers.
"""

from __future__ import annotations

import random
import struct
import zlib
from base64 import b64encode
from dataclasses import dataclass

from flashsloth.benchmark.serving.breakable_server import POISON
from flashsloth.benchmark.serving.figures import RowResult
from flashsloth.benchmark.serving.load import ask_once, run_load
from flashsloth.benchmark.serving.questions import NEVER_ENDS, Question, chat, draw_question, picture_bytes
from flashsloth.benchmark.serving.server_process import ServerProcess
from flashsloth.benchmark.serving.solo import SoloAnswers

ONE_OF = 8
"""Requests, of which one is bad."""
AT_ONCE, TOKENS, QUESTIONS_A_PICTURE = 32, 16, 4
NO_END = {"1": -100}
BOMB_SIDE, LONG_WORDS = 60_000, 30_000
OTHERS = 100
FIRST_PICTURE = 100_000
"""Number of pictures that nothing else asks about."""


@dataclass(frozen=True)
class Bad:
    """A request that must fail, and with which status."""

    content: bytes
    status: int


async def poison(server: ServerProcess, solo: SoloAnswers, requests: int) -> RowResult:
    """P1: one of eight is bad; the others' answers are as they are alone."""
    pictures = max(requests // QUESTIONS_A_PICTURE, 1)
    asked = [draw_question(number, pictures, TOKENS) for number in range(requests)]
    bad = {number: bad_request(number) for number in range(0, requests, ONE_OF)}

    def content(number: int) -> bytes:
        return bad[number].content if number in bad else asked[number].stream()

    found = await run_load(server, content, requests, min(AT_ONCE, requests))
    result, good = RowResult("P1"), 0
    for one in found.ends:
        if one.number not in bad:
            told = solo.wrong(one, asked[one.number])
            result.wrong += [told] if told else []
            good += told is None
        elif one.status != bad[one.number].status:
            result.wrong.append(f"bad request {one.number}: status {one.status}; expected {bad[one.number].status}")
    result.add("bad requests", len(bad))
    result.add("neighbours equal to their answer alone", good, least=requests - len(bad))
    return result


def bad_request(number: int) -> Bad:
    """A bad request, of each kind in turn."""
    kinds = (_corrupt, _bomb, _failing_grammar, _too_long, _failing_pass)
    return kinds[number // ONE_OF % len(kinds)](number)


def _about(picture: bytes, text: str = "What is it?") -> bytes:
    url = "data:image/png;base64," + b64encode(picture).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return chat({"model": "nano", "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS})


def _corrupt(number: int) -> Bad:
    whole = bytearray(picture_bytes(number % 16))
    chance = random.Random(number)
    for _ in range(64):
        whole[chance.randrange(8, len(whole))] ^= 0xFF
    return Bad(_about(bytes(whole[: len(whole) * 3 // 4])), 400)


def _bomb(number: int) -> Bad:
    """A few bytes that would be gigabytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", BOMB_SIDE + number % 7, BOMB_SIDE, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes(1 << 16))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", content), chunk(b"IEND", b"")
    return Bad(_about(b"\x89PNG\r\n\x1a\n" + b"".join(parts)), 400)


def _failing_grammar(number: int) -> Bad:
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": str(number)}}}}
    form = {"type": "json_schema", "json_schema": {"name": "bad", "schema": schema}}
    return Bad(draw_question(number, 16, TOKENS).request(response_format=form), 400)


def _too_long(number: int) -> Bad:
    return Bad(Question(number % 16, "word " * LONG_WORDS, TOKENS).request(), 400)


def _failing_pass(number: int) -> Bad:
    return Bad(Question(number % 16, NEVER_ENDS, TOKENS).request(seed=POISON, logit_bias=NO_END), 500)


async def caches(server: ServerProcess, solo: SoloAnswers, rounds: int) -> RowResult:
    """P2: after a refusal with a picture, the same picture is answered about rightly, and so are others."""
    result = RowResult("P2")
    connection = await server.open()
    for number in range(rounds):
        picture = FIRST_PICTURE + number
        bad = (Question(picture, "word " * LONG_WORDS, TOKENS).request(), 400)
        worse = (Question(picture, NEVER_ENDS, TOKENS).request(seed=POISON, logit_bias=NO_END), 500)
        for content, status in (bad, worse) if number % 2 else (worse, bad):
            end = await ask_once(connection, number, content)
            if end.status != status:
                result.wrong.append(f"bad request {number}: status {end.status}; expected {status}")
        good = Question(picture, "What color is the circle?", TOKENS)
        told = solo.wrong(await ask_once(connection, number, good.request()), good)
        result.wrong += [told] if told else []
    connection.abort()
    asked = [draw_question(number, OTHERS, TOKENS) for number in range(OTHERS)]
    found = await run_load(server, lambda i: asked[i].request(), OTHERS, AT_ONCE)
    result.wrong += [told for one in found.ends if (told := solo.wrong(one, asked[one.number]))]
    result.add("pictures that were refused before", rounds)
    result.add("others", len(found.ends), least=OTHERS)
    return result
