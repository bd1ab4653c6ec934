"""An answer's text and its tokens' texts: each, joined, is the content, wherever steps, characters and stops end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from flashsloth.inference.detokenizer import text_of
from flashsloth.inference.sampling import Sampled
from flashsloth.serving.answer_text import AnswerText, TokenText, described_token

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
    assert [one.sampled.token for one in tokens] == ids[: len(tokens)]


def test_any_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Bytes that make no character among them, and special tokens."""
    chance = random.Random(0)
    for _ in range(200):
        ids = [chance.randrange(len(tiny_tokenizer)) for _ in range(chance.randrange(40))]
        text, tokens = grown(ids, tiny_tokenizer, (), chance)
        assert text == text_of(ids, tiny_tokenizer)
        assert "".join(one.text for one in tokens) == text


def test_a_token_is_described_with_its_bytes(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    [token] = tiny_tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    described = described_token(TokenText(Sampled(token, -0.5, ((token, -0.5),)), "é"), tiny_tokenizer)
    assert (described["token"], described["bytes"], described["logprob"]) == ("é", [195, 169], -0.5)
    assert len(described["top_logprobs"]) == 1
