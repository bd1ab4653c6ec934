"""A conversation remembers, runs only what is new, and answers as if all of it had been run again."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import tiny
from PIL import Image

from flashsloth.errors import PromptError
from flashsloth.inference.chat import Conversation
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.media import PictureError

LENGTH = 6


def uncached(sloth: FlashSloth, turns: list[tuple[str, str]], question: str, *pictures: list[Image.Image]) -> str:
    """The answer of one pass over the whole conversation; `pictures` of each turn, the last one's included."""
    shown = [*pictures, *([[]] * (len(turns) + 1 - len(pictures)))]
    messages: list[dict[str, Any]] = []
    for (asked, answered), images in zip(turns, shown, strict=False):
        messages += [tiny.user(asked, *images), tiny.assistant(answered)]
    messages.append(tiny.user(question, *shown[len(turns)]))
    inputs = tiny.encode(sloth.processor, messages)
    ids = sloth.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=sloth.engine.end_ids)
    return sloth.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def columns_run(sloth: FlashSloth, conversation: Conversation, question: str, *image: Image.Image) -> int:
    """How many positions the first pass of the next answer runs."""
    seen: list[int] = []
    hook = sloth.model.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    conversation.ask(question, *image)
    hook.remove()
    return seen[0]


def test_every_turn_is_what_a_full_pass_says(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    shown: list[list[Image.Image]] = [[pictures[0]]]
    for question, image in (("What is this?", None), ("And where?", None), ("And this?", pictures[1]), ("Both?", None)):
        if image is not None:
            shown += [[]] * (len(chat.turns) - len(shown)) + [[image]]
        expected = uncached(sloth, chat.turns, question, *shown)
        assert chat.ask(question, image) == expected
    assert [question for question, _ in chat.turns] == ["What is this?", "And where?", "And this?", "Both?"]


def test_only_new_columns_are_run(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    sloth.pictures.clear()
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    first = columns_run(sloth, chat, "What is this?")
    second = columns_run(sloth, chat, "And where?")
    assert second < first  # system text and picture were not run again


def test_a_conversation_without_pictures_can_get_one(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(max_tokens=LENGTH)
    assert chat.ask("Hello?") == uncached(sloth, [], "Hello?")
    turns = chat.turns
    assert chat.ask("This?", pictures[0]) == uncached(sloth, turns, "This?", [], [pictures[0]])


def test_a_stream_joins_to_the_turn(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    text = "".join(chat.stream("What is this?"))
    assert chat.turns == [("What is this?", text)]
    assert text == sloth.answer(pictures[0], "What is this?", max_tokens=LENGTH)


def test_a_stopped_answer_is_remembered_as_far_as_it_got(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    reader = chat.stream("What is this?")
    piece = next(reader)
    reader.close()
    assert chat.turns[0][1].startswith(piece)
    expected = uncached(sloth, chat.turns, "And where?", [pictures[0]])
    assert chat.ask("And where?") == expected


def test_a_mistake_leaves_the_conversation_as_it_was(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    chat.ask("What is this?")
    turns = chat.turns
    with pytest.raises(PictureError):
        chat.ask("And this?", "nowhere.png")
    with pytest.raises(PromptError, match="empty"):
        chat.ask(" ")
    with pytest.raises(PromptError, match="context"):
        chat.ask("why " * 2000)
    assert chat.turns == turns
    expected = uncached(sloth, turns, "And where?", [pictures[0]])
    assert chat.ask("And where?") == expected


def test_an_error_in_the_middle_costs_the_cache_not_the_truth(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    chat.ask("What is this?")
    turns = chat.turns

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(sloth.model.model.language_model, "forward", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            chat.ask("And where?")
    assert chat.turns == turns
    assert chat.ask("And where?") == uncached(sloth, turns, "And where?", [pictures[0]])


def test_two_answers_at_once_are_refused(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    first, second = chat.stream("What?"), chat.stream("Where?")
    next(first)
    with pytest.raises(PromptError, match="another answer"):
        chat.ask("Which?")
    list(first)
    with pytest.raises(PromptError, match="another answer"):
        list(second)
    assert len(chat.turns) == 1


def test_ctrl_c_keeps_what_was_said(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    whole = sloth.answer(pictures[0], "What is this?", max_tokens=LENGTH)
    forward, calls = sloth.model.model.language_model.forward, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)  # as from the terminal: it comes to the thread that waits
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sloth.model.model.language_model, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            chat.ask("What is this?")
    assert [question for question, _ in chat.turns] in ([], ["What is this?"])  # as far as the reader got
    assert all(whole.startswith(answer) for _, answer in chat.turns)
    expected = uncached(sloth, chat.turns, "And where?", [pictures[0]])
    assert chat.ask("And where?") == expected
