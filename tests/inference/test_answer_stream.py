"""Text as it becomes certain, from a model that stops and fails with its reader."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import Detokenizer, text_of
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "text",
    [" a red dog", "grün – 日本語 🙂", " two  spaces\n\nand lines \n", "   ", "", " 🙂🙂", "a\ufffdb", "e\u0301"],
)
def test_pieces_join_to_the_answer(text: str) -> None:
    tokenizer = tiny.make_tokenizer()
    answer = Detokenizer(tokenizer)
    pieces = list(answer.pieces(ids_of(tokenizer, text)))
    assert "".join(pieces) == text.strip() == text_of(ids_of(tokenizer, text), tokenizer)
    assert all(pieces)


def test_no_half_character_is_shown() -> None:
    tokenizer = tiny.make_tokenizer()
    answer = Detokenizer(tokenizer)
    shown = [answer.add(token_id) for token_id in ids_of(tokenizer, "a🙂b")]
    assert shown == ["a", "", "", "", "🙂", "b"]
    cut = Detokenizer(tokenizer)
    assert "".join(cut.pieces(ids_of(tokenizer, "a🙂")[:-1])) == "a\ufffd"  # the answer ended inside a character


def test_white_space_waits_for_what_follows() -> None:
    tokenizer = tiny.make_tokenizer()
    answer = Detokenizer(tokenizer)
    assert [answer.add(token_id) for token_id in ids_of(tokenizer, "x \ny")] == ["x", "", "", " \ny"]


def test_special_tokens_are_no_text() -> None:
    tokenizer = tiny.make_tokenizer()
    ids = [*ids_of(tokenizer, "dog"), tokenizer.eos_token_id]
    assert "".join(Detokenizer(tokenizer).pieces(ids)) == "dog"


def test_a_reader_who_stops_stops_the_model(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    reader = sloth.stream(pictures[0], "What is this?", max_tokens=900)
    piece = next(reader)
    with pytest.raises(PromptError, match="the answer is still being made"):
        _ = reader.answer
    reader.close()
    assert reader.text.startswith(piece)
    assert reader.answer.finish_reason == FinishReason.ABORT
    assert list(reader) == []
    assert sloth.answer(pictures[0], "What is this?", max_tokens=1)  # who asks next waits for no more than a step
    assert not sloth.engine.has_work


def test_reading_leaves_gradients_as_they_were(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    assert torch.is_grad_enabled()
    reader = sloth.stream(pictures[0], "What is this?", max_tokens=9)
    next(reader)
    assert torch.is_grad_enabled()
    reader.close()


def test_an_error_inside_reaches_the_reader(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, passes = sloth.model.model.language_model.forward, []

    def broken(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        if len(passes) > 3:
            raise RuntimeError("out of memory")
        return forward(*args, **kwargs)

    sloth.engine_thread.run(lambda engine: None)  # a pass of an answer that was closed before is over
    monkeypatch.setattr(sloth.model.model.language_model, "forward", broken)
    reader = sloth.stream(pictures[0], "What is this?")
    with pytest.raises(RuntimeError, match="out of memory"):
        list(reader)
    assert len(reader.tokens) == 3
