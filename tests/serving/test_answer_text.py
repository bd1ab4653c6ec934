"""An answer's text and its tokens' texts: each, joined, is the content, wherever steps, characters and stops end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import tiny
from tokenizers_like import spaced_tokenizer
from transformers import PreTrainedTokenizerFast

from flashsloth.inference.detokenizer import text_of
from flashsloth.inference.sampling import Sampled
from flashsloth.serving.answer_text import AnswerText, TokenText, described_token, token_bytes

TEXT = "  Größe 尺寸 \U0001f600 is there, and what is left of the red circle?  \n"
STOPS: list[tuple[str, ...]] = [(), ("is",), ("尺寸",), ("of t", "?"), ("Größe",), ("never there",), (" \U0001f600",)]


def grown(ids: list[int], tokenizer: Any, stop: tuple[str, ...], chance: random.Random) -> tuple[str, list[TokenText]]:
    """Pieces and tokens, joined, of an answer that comes in steps of any size."""
    answer, text, tokens, place = AnswerText(tokenizer, stop, by_token=True), "", [], 0
    while place < len(ids):
        step = chance.randint(1, 4)
        piece, some = answer.add([Sampled(one, -1.0) for one in ids[place : place + step]])
        place, text = place + step, text + piece
        tokens += some
        assert text.startswith("".join(one.text for one in tokens)), "a token came before its text"
    piece, some = answer.finish()
    assert answer.content == text + piece
    return text + piece, [*tokens, *some]


@pytest.mark.parametrize("stop", STOPS)
def test_tokens_are_the_content(stop: tuple[str, ...], tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for seed in range(20):
        text, tokens = grown(ids, tiny_tokenizer, stop, random.Random(seed))
        assert text == text_of(ids, tiny_tokenizer, stop)
        assert "".join(one.text for one in tokens) == text
        described = [described_token(one, tiny_tokenizer) for one in tokens]
        assert b"".join(bytes(one["bytes"]) for one in described) == text.encode()
    assert [one.sampled.token for one in tokens] == ids[: len(tokens)]


def test_any_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Bytes that make no character among them, and special tokens."""
    chance = random.Random(0)
    for _ in range(200):
        ids = [chance.randrange(len(tiny_tokenizer)) for _ in range(chance.randrange(40))]
        text, tokens = grown(ids, tiny_tokenizer, (), chance)
        assert text == text_of(ids, tiny_tokenizer)
        assert "".join(one.text for one in tokens) == text


@pytest.mark.parametrize("make", [tiny.make_tokenizer, spaced_tokenizer])
def test_a_part_of_a_character_has_its_own_bytes(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    """As bytes are written in GPT-2's vocabularies, and in Llama's."""
    tokenizer = make()
    ids = tokenizer("a尺", add_special_tokens=False)["input_ids"]
    assert [token_bytes(one, tokenizer) for one in ids] == [b"a", b"\xe5", b"\xb0", b"\xba"]
    top = ((ids[1], -0.5), (ids[0], -1.0))
    _, tokens = grown_of([Sampled(one, -0.5, top) for one in ids], tokenizer)
    described = [described_token(one, tokenizer) for one in tokens]
    assert [(one["token"], one["bytes"]) for one in described] == [
        ("a", [97]),
        ("", [0xE5]),
        ("", [0xB0]),
        ("尺", [0xBA]),
    ]
    assert [one["bytes"] for one in described[0]["top_logprobs"]] == [[0xE5], [97]]


def test_a_token_is_found_among_the_likeliest(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Also where the content is without the white space before it."""
    ids = tiny_tokenizer(" red", add_special_tokens=False)["input_ids"]
    others = [one for one in range(len(tiny_tokenizer)) if one not in ids][-2:]
    _, tokens = grown_of(
        [Sampled(one, -0.5, ((others[0], -0.4), (one, -0.5), (others[1], -9.0))) for one in ids], tiny_tokenizer
    )
    for described in (described_token(one, tiny_tokenizer) for one in tokens):
        assert {name: described[name] for name in ("token", "logprob", "bytes")} == described["top_logprobs"][1]
        assert described["top_logprobs"][0]["token"] == tiny_tokenizer.decode([others[0]])


def grown_of(sampled: list[Sampled], tokenizer: Any) -> tuple[str, list[TokenText]]:
    answer = AnswerText(tokenizer, (), by_token=True)
    parts = [answer.add(sampled), answer.finish()]
    return "".join(text for text, _ in parts), [one for _, tokens in parts for one in tokens]
