"""A client's messages as the engine takes them: turns, places of pictures, and what is refused by name."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flashsloth.serving.api_error import ApiError
from flashsloth.serving.conversation import Conversation, ConversationReader

IMAGE = {"type": "image"}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def read(*messages: tuple[str, list[dict[str, Any]]], system: str | None = None) -> Conversation:
    reader = ConversationReader(4, "messages", system)
    for place, (role, parts) in enumerate(messages):
        reader.pictures += [f"picture {place}" for part in parts if part == IMAGE]
        reader.add(role, parts, f"messages[{place}]")
    return reader.read()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([IMAGE, text("a")], [IMAGE, text("a")]),
        ([text("a"), IMAGE, IMAGE], [IMAGE, IMAGE, text("a")]),
        ([text("a"), text("b"), IMAGE], [IMAGE, text("a\nb")]),
        ([IMAGE, text("a"), IMAGE], [IMAGE, text("a"), IMAGE]),
        ([text("a"), IMAGE, text("b")], [text("a"), IMAGE, text("b")]),
        ([IMAGE], [IMAGE]),
        ([text("a")], [text("a")]),
    ],
)
def test_pictures_stand_first_unless_texts_do(parts: list[Any], expected: list[Any]) -> None:
    found = read(("user", parts))
    assert found.messages == [{"role": "user", "content": expected}]
    assert len(found.pictures) == parts.count(IMAGE)


def test_messages_of_one_role_are_one() -> None:
    found = read(
        ("system", [text("first")]),
        ("developer", [text("second")]),
        ("user", [text("a")]),
        ("user", [IMAGE]),
        ("assistant", [text("b"), text("c")]),
        ("user", [text("d")]),
        system="zero",
    )
    assert found.system == "zero\n\nfirst\n\nsecond"
    assert found.messages == [
        {"role": "user", "content": [IMAGE, text("a")]},
        {"role": "assistant", "content": "b\nc"},
        {"role": "user", "content": [text("d")]},
    ]


def test_without_a_system_text_the_models_own_stays() -> None:
    assert read(("user", [text("a")])).system is None
    assert read(("system", [text("")]), ("user", [text("a")])).system == ""


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([("assistant", [text("a")])], "messages[0].role"),
        ([("tool", [text("a")])], "messages[0].role"),
        ([("user", [text("a")]), ("system", [text("b")])], "messages[1].role"),
        ([("system", [IMAGE])], "messages[0].content"),
        ([("user", [text("a")]), ("assistant", [IMAGE])], "messages[1].content"),
        ([("system", [text("a")])], "messages"),
        ([("user", [text("a")]), ("assistant", [text("b")])], "messages"),
        ([("user", [IMAGE] * 5)], "messages"),
    ],
)
def test_what_cannot_be_answered_is_named(messages: list[Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(*messages)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_texts_that_no_prompt_can_hold_are_refused_before_they_are_written() -> None:
    reader = ConversationReader(4, "messages", most_characters=10)
    reader.add("user", [text("12345"), IMAGE], "messages[0]")
    with pytest.raises(ApiError, match="more than 10 characters") as refused:
        reader.add("user", [text("123")], "messages[1]")
    assert (refused.value.status, refused.value.param) == (400, "messages")
    with pytest.raises(ApiError, match="more than 8 characters"):
        ConversationReader(4, "input", "a system", 8).add("user", [text("")], "input")


def test_many_parts_are_joined_at_once() -> None:
    parts = 200_000
    began = time.process_time()
    found = read(("user", [text("abcdefghij")] * parts))
    assert time.process_time() - began < 2  # joined one after the other they would take a minute
    assert found.messages[0]["content"][0]["text"].count("\n") == parts - 1
