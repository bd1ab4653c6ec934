"""Records as they are in the wild: what becomes of each, and what is said of those that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from llava_files import turns

from flashsloth.training.data.conversation import messages_of
from flashsloth.training.data.layouts import read_record
from flashsloth.training.data.sample import KINDS, BadSampleError


def parts(record: dict[str, Any]) -> list[Any]:
    """Each message as text, or as a list of its parts: a picture's name in brackets, or words."""
    messages = messages_of(read_record(record))
    return [
        m["content"]
        if isinstance(m["content"], str)
        else [f"[{p['image']}]" if p["type"] == "image" else p["text"] for p in m["content"]]
        for m in messages
    ]


def test_one_picture_moves_to_the_front_of_its_turn() -> None:
    for text in ("<image>\nWhat?", "What?\n<image>", "  What? <image> "):
        assert parts({"image": "a.jpg", "conversations": turns(text, "a")}) == [["[a.jpg]", "What?"], "a"]
    later = {"image": "a.jpg", "conversations": turns("Hello", "Hi", "What?\n<image>", "a")}
    assert parts(later) == [["Hello"], "Hi", ["[a.jpg]", "What?"], "a"]


def test_several_pictures_stand_where_they_are_named() -> None:
    both = {"image": ["a.jpg", "b.jpg"], "conversations": turns("Compare <image>\nand <image>.", "same")}
    assert parts(both) == [["Compare ", "[a.jpg]", "and ", "[b.jpg]", "."], "same"]
    apart = {"images": ["a.jpg", "b.jpg"], "conversations": turns("<image>\nThis?", "dog", "<image>\nAnd this?", "cat")}
    assert parts(apart) == [["[a.jpg]", "This?"], "dog", ["[b.jpg]", "And this?"], "cat"]
    front = {"image": ["a.jpg", "b.jpg"], "conversations": turns("<image>\n<image>\nWhich?", "first")}
    assert parts(front) == [["[a.jpg]", "[b.jpg]", "Which?"], "first"]


def test_without_placeholders_pictures_stand_in_front() -> None:
    record = {"image": ["a.jpg", "b.jpg"], "conversations": turns("Which?", "first", "Sure?", "yes")}
    assert parts(record) == [["[a.jpg]", "[b.jpg]", "Which?"], "first", ["Sure?"], "yes"]


def test_without_pictures_there_is_no_place_for_one() -> None:
    for text in ("<image>\nWhat?", "What is in <image> here?"):
        with pytest.raises(BadSampleError, match="says <image> 1 times but names no picture") as error:
            parts({"conversations": turns(text, "Yes")})
        assert error.value.kind == "placeholder_mismatch"
    assert parts({"image": None, "conversations": turns("Hi", "Yes")}) == [["Hi"], "Yes"]
    assert parts({"conversations": turns("Which tag?", "<image>")}) == [["Which tag?"], "<image>"]


def test_a_caption_has_a_picture_and_no_words() -> None:
    assert parts({"image": "a.jpg", "conversations": turns("<image>", "a dog")}) == [["[a.jpg]", ""], "a dog"]


def test_a_conversation_that_was_cut_begins_with_its_first_question() -> None:
    cut = [{"from": "gpt", "value": "...and so on."}, *turns("Go on", "ok")]
    assert parts({"conversations": cut}) == [["Go on"], "ok"]
    led = [{"from": "system", "value": "Be brief."}, *turns("Hi", "Ho")]
    assert read_record({"conversations": led}).turns[0] == ("system", ("Be brief.",))
    assert parts({"conversations": led}) == ["Be brief.", ["Hi"], "Ho"]


def test_messages_with_role_and_content_are_read_too() -> None:
    record = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "source": "x"}
    assert parts(record) == [["Hi"], "Ho"]


@pytest.mark.parametrize(
    ("record", "kind", "message"),
    [
        ({"id": 1}, "no_conversation", "has no conversations"),
        ({"conversations": []}, "no_conversation", "has no conversations"),
        ({"conversations": "Hi"}, "no_conversation", "is str, expected a list of turns"),
        ({"conversations": ["Hi"]}, "broken_turns", "turn 0 is str"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "broken_turns", "holds no question"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "broken_turns", "turn 0 is from 'robot'"),
        ({"conversations": turns("a", "b", "c")}, "broken_turns", "ends with a question"),
        ({"conversations": [*turns("a", "b"), *turns("a", "b")[1:]]}, "broken_turns", "turn 2 is the assistant's"),
        ({"conversations": [{"from": "human", "value": None}]}, "broken_turns", "turn 0 has NoneType as its value"),
        ({"conversations": turns("a", "b\ud83d")}, "broken_turns", "turn 1 holds half a character at 1"),
        ({"conversations": turns("a", "  ")}, "nothing_supervised", "empty answers alone"),
    ],
)
def test_what_cannot_be_a_conversation_says_why(record: dict, kind: str, message: str) -> None:
    with pytest.raises(BadSampleError) as error:
        read_record(record)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.kind == kind
    assert kind in KINDS


@pytest.mark.parametrize(("text", "names"), [("<image><image>", ["a"]), ("<image>", ["a", "b"])])
def test_placeholders_must_match(text: str, names: list[str]) -> None:
    with pytest.raises(BadSampleError, match="times but names") as error:
        parts({"image": names, "conversations": turns(text, "x")})
    assert error.value.kind == "placeholder_mismatch"
