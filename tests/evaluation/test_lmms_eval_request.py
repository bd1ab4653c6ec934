"""What lmms-eval asks becomes pictures, a question and options, or an error; without lmms-eval."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.lmms_eval_request import (
    MODEL_CLASS,
    ChatQuestion,
    answer_options,
    chat_question,
    device_of,
    manifest,
)
from flashsloth.evaluation.task import EvaluationError
from flashsloth.inference.options import Options

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
ONE, TWO = object(), object()
FIRST, SECOND = ({"type": "image", "url": picture} for picture in (ONE, TWO))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_the_entry_point_names_a_function_and_a_class_that_are_there() -> None:
    [(name, value)] = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["lmms_eval.models"].items()
    module, _, function = value.partition(":")
    assert name == "flashsloth"
    assert getattr(importlib.import_module(module), function) is manifest
    file = importlib.util.find_spec(MODEL_CLASS.rpartition(".")[0]).origin
    assert f"class {MODEL_CLASS.rpartition('.')[2]}(lmms)" in Path(file).read_text()


@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is not None, reason="lmms-eval is installed")
def test_without_lmms_eval_one_line_says_so() -> None:
    with pytest.raises(ImportError, match=r"^this is a model of lmms-eval.*: pip install lmms-eval==0\.7\.3$") as one:
        importlib.import_module(MODEL_CLASS.rpartition(".")[0])
    assert isinstance(one.value, FlashSlothError)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user(FIRST, text("What?"))], ChatQuestion([ONE], "What?")),
        ([user(FIRST, SECOND, text("One, "), text("two?"))], ChatQuestion([ONE, TWO], "One, two?")),
        ([user(text("What?"))], ChatQuestion([], "What?")),
        ([{"role": "user", "content": "What?"}], ChatQuestion([], "What?")),
        (
            [user(text("See"), FIRST, text("and"), SECOND, text("."))],
            ChatQuestion([ONE, TWO], [text("See"), {"type": "image"}, text("and"), {"type": "image"}, text(".")]),
        ),
        (
            [{"role": "system", "content": [text("Think.")]}, user(FIRST, text("What?"))],
            ChatQuestion([ONE], "What?", "Think."),
        ),
        ([{"role": "system", "content": ""}, user(text("What?"))], ChatQuestion([], "What?", "")),
    ],
)
def test_messages(messages: list[dict[str, Any]], expected: ChatQuestion) -> None:
    assert chat_question(messages) == expected


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([user(text("One?")), {"role": "assistant", "content": "1"}, user(text("Two?"))], "leave --num_fewshot out"),
        ([], r"messages are of \[\]"),
        (None, "messages are of NoneType"),
        ([user({"type": "video", "url": "a.mp4"}, text("What?"))], "holds video; expected text or image"),
        ([{"role": "system", "content": [FIRST]}, user(text("What?"))], "holds image; expected text"),
    ],
)
def test_messages_that_are_no_question_are_refused(messages: Any, reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason):
        chat_question(messages)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"max_tokens": 2000, "temperature": 0.0}),
        (
            {
                "max_new_tokens": 16,
                "temperature": 0,
                "top_p": 1.0,
                "num_beams": 1,
                "do_sample": False,
                "until": ["\n\n"],
            },
            {"max_tokens": 16, "temperature": 0.0},
        ),
        ({"temperature": 0, "top_p": 0}, {"max_tokens": 2000, "temperature": 0.0}),
        (
            {"max_new_tokens": 1024, "temperature": 0.2, "top_p": None, "do_sample": False},
            {"max_tokens": 1024, "temperature": 0.2},
        ),
        (
            {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "do_sample": True},
            {"max_tokens": 2000, "temperature": 0.5, "top_p": 0.9, "top_k": 3},
        ),
        (
            {"until": ["ASSISTANT:"], "image_aspect_ratio": "original"},
            {"max_tokens": 2000, "temperature": 0.0, "stop": ["ASSISTANT:"]},
        ),
        ({"until": "Q:"}, {"max_tokens": 2000, "temperature": 0.0, "stop": "Q:"}),
        ({"until": None, "temperature": None}, {"max_tokens": 2000, "temperature": 0.0}),
        ({"until": ["Q:", "\n\n"]}, {"max_tokens": 2000, "temperature": 0.0, "stop": ["Q:", "\n\n"]}),
    ],
)
def test_generation_settings(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    before = dict(settings)
    assert answer_options(settings) == expected
    assert settings == before  # it is lmms-eval's own
    Options.of(expected)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"num_beams": 5}, "num_beams=5, expected 1"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio='pad', expected 'original'"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1, expected 1"),
        ({"max_agentic_steps": 3}, "max_agentic_steps=3, which FlashSloth does not have"),
        ({"do_sample": True}, "do_sample is true and temperature 0"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason):
        answer_options(settings)


@pytest.mark.parametrize(
    ("device", "local_rank", "devices", "expected"),
    [
        ("auto", None, 8, "auto"),
        ("auto", "0", 0, "auto"),
        ("cpu", "1", 8, "cpu"),
        ("auto", "3", 8, "cuda:3"),
        ("cuda", "1", 2, "cuda:1"),
        ("cuda:0", "1", 2, "cuda:0"),
        ("auto", "5", 4, "cuda:1"),
    ],
)
def test_each_process_has_a_device_of_its_own(device: str, local_rank: str | None, devices: int, expected: str) -> None:
    assert device_of(device, local_rank, devices) == expected
