"""Pictures are prepared ahead, in threads that end; mistakes are raised where answers are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from twins import MakeTwins, Twins

from flashsloth.inference import PromptError
from flashsloth.media import PictureError

QUESTION, OTHER = "What is this?", "Is it?"
LENGTH = 6


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("pictures", "prompts"))}


def test_pairs_are_read_as_they_are_needed(make_twins: MakeTwins, pictures: list[Image.Image]) -> None:
    twins = make_twins(ahead=3)
    read: list[int] = []

    def pairs() -> Iterator[tuple[Image.Image, str]]:
        for place in range(30):
            read.append(place)
            yield pictures[place % 3], QUESTION

    answers = twins.fast.answer_as_ready(pairs(), max_new_tokens=LENGTH)
    next(answers)
    assert len(read) < 30
    assert threads()
    answers.close()
    assert not threads()
    assert twins.engine.borrow(4, 8) is not None


def test_answers_belong_to_their_pairs(twins: Twins, pictures: list[Image.Image]) -> None:
    pairs = [(pictures[place % 3], (QUESTION, OTHER)[place % 2]) for place in range(13)]
    expected = [twins.plain.answer(*pair, max_new_tokens=LENGTH) for pair in pairs[:6]]
    found = dict(twins.fast.answer_as_ready(iter(pairs), max_new_tokens=LENGTH))
    assert [found[place] for place in range(13)] == [expected[place % 6] for place in range(13)]
    assert not threads()


def test_what_is_wrong_is_said_and_the_engine_is_free_again(
    twins: Twins, pictures: list[Image.Image], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(PictureError):
        twins.fast.answer_batch([(pictures[0], QUESTION), (broken, QUESTION)], max_new_tokens=LENGTH)
    with pytest.raises(PromptError, match="the question is empty"):
        twins.fast.answer_batch([(pictures[0], QUESTION), (pictures[0], " ")], max_new_tokens=LENGTH)
    with pytest.raises(PromptError, match="pair 1 is int; expected"):
        twins.fast.answer_batch([(pictures[0], QUESTION), 3], max_new_tokens=LENGTH)  # type: ignore[list-item]
    with pytest.raises(PromptError, match="this model's context is"):
        twins.fast.answer_batch([(pictures[0], QUESTION), (None, "why " * 2000)], max_new_tokens=LENGTH)
    assert not threads()
    for rows in (1, 4):
        assert twins.engine.borrow(rows, 8) is not None
        twins.engine.give_back(rows)
    assert twins.fast.answer_batch([], max_new_tokens=LENGTH) == []
    assert (
        twins.fast.answer_batch([(pictures[0], QUESTION)] * 2, max_new_tokens=LENGTH)
        == [twins.plain.answer(pictures[0], QUESTION, max_new_tokens=LENGTH)] * 2
    )
