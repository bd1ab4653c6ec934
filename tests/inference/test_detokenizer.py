"""Text piece by piece: equal to the whole, cut at stop strings wherever tokens end."""

from __future__ import annotations

import random
import time

import pytest
from transformers import PreTrainedTokenizerFast

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import Detokenizer, text_of
from flashsloth.inference.sampling_params import SamplingParams

TEXT = "  Größe 尺寸 \U0001f600 is there, and what is left of the red circle?  \n"


def test_pieces_are_the_whole_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chance = random.Random(0)
    for _ in range(100):
        ids = [chance.randrange(len(tiny_tokenizer)) for _ in range(chance.randrange(40))]
        text = Detokenizer(tiny_tokenizer)
        assert "".join(text.pieces(ids)) == text_of(ids, tiny_tokenizer)


def test_a_character_waits_for_its_last_byte(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    text = Detokenizer(tiny_tokenizer)
    pieces = list(text.pieces(ids))
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == TEXT.strip()


@pytest.mark.parametrize("stop", ["is", "尺寸", " \U0001f600 is", "t of t", "?", "Größe", "x", "circle?  \n"])
def test_stop_strings_over_token_borders(stop: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    text = Detokenizer(tiny_tokenizer, (stop, "never to be found"))
    pieces = "".join(text.pieces(ids))
    place = TEXT.find(stop)
    assert pieces == (TEXT[:place] if place >= 0 else TEXT).strip() == text.text
    assert text.stopped == (place >= 0)


@pytest.mark.parametrize("stop", [(), ("is", "尺寸"), ("left of",)])
def test_tokens_in_groups_are_the_same_text(stop: tuple[str, ...], tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    chance = random.Random(1)
    spelled = tiny_tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for number in range(100):
        ids = spelled if number % 2 else [chance.randrange(len(tiny_tokenizer)) for _ in range(chance.randrange(40))]
        text, pieces, place = Detokenizer(tiny_tokenizer, stop), [], 0
        while place < len(ids):
            group = chance.randrange(6)
            pieces.append(text.extend(ids[place : place + group]))
            place += group
        assert "".join([*pieces, text.finish()]) == text_of(ids, tiny_tokenizer, stop)


def test_what_may_become_a_stop_string_is_held_back(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """Its longest beginning: that of "aab" in "aaa" is two characters."""
    for stops, text, given in (
        (("aab",), "aaa", "a"),
        (("aab", "aaab"), "aaa", ""),
        (("b", "aaaaaa"), "xaaa", "x"),
        (("abab", "bac"), "aba", ""),
        (("abc", "bd"), "xab", "x"),
        (("bd",), "xac", "xac"),
    ):
        detokenizer = Detokenizer(tiny_tokenizer, stops)
        ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(map(detokenizer.add, ids)) == given, (stops, text)


def test_long_stop_strings_cost_little(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PromptError, match="300 characters; expected at most 256"):
        SamplingParams(stop=["a" * 300])
    [token] = tiny_tokenizer("a", add_special_tokens=False)["input_ids"]
    text = Detokenizer(tiny_tokenizer, ["b" * 5000] * 16)
    began = time.process_time()
    for _ in range(2000):
        text.add(token)
    assert time.process_time() - began < 1.5  # compared ending by ending, it would take several seconds
