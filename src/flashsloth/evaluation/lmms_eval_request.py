"""What lmms-eval asks, as FlashSloth is asked it; and the plug-in that makes FlashSloth known there.

In: the messages and the generation settings of lmms-eval's chat models. Out: pictures, a question, and options of
`answer_as_ready`. What cannot be done as it is asked is an error, never left out. Nothing here needs lmms-eval but
:func:`manifest`, which lmms-eval calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashsloth.evaluation.settings import NOT_SET
from flashsloth.evaluation.task import EvaluationError

MODEL_NAME = "flashsloth"
MODEL_CLASS = "flashsloth.evaluation.lmms_eval_model.FlashSlothModel"
INJECTED_UNTIL = ["\n\n"]
"""What lmms-eval puts into `until` where a task sets none; the published code ignored it."""
AS_THEY_ARE = ("original", None)
"""Of `image_aspect_ratio`: a picture is shown as FlashSloth always shows it."""
SAMPLING = ("top_p", "top_k", "min_p")


def manifest() -> Any:
    """The entry point of group `lmms_eval.models`.

    It imports nothing else: one plug-in that fails disables all later ones.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_NAME, chat_class_path=MODEL_CLASS)


@dataclass(frozen=True)
class ChatQuestion:
    """One request's messages.

    Attributes:
        pictures: in order, as lmms-eval hands them out.
        question: a text; or parts, where pictures stand between texts.
        system: what opens the prompt in place of the model's own text; None for that.
    """

    pictures: list[Any]
    question: str | list[dict[str, Any]]
    system: str | None = None


def chat_question(messages: Any) -> ChatQuestion:
    """A conversation of one question.

    Args:
        messages: `{"role": ..., "content": text or parts}`, a part being `{"type": "text", "text": ...}` or
            `{"type": "image", "url": a picture}`.

    Raises:
        EvaluationError: for what FlashSloth is not asked so: other turns, sounds, films.
    """
    system = None
    if isinstance(messages, list) and messages and messages[0].get("role") == "system":
        opening, *messages = messages
        system = "".join(part["text"] for part in _parts(opening, ("text",)))
    roles = [one.get("role") for one in messages] if isinstance(messages, list) else type(messages).__name__
    if roles != ["user"]:
        raise EvaluationError(f"messages are of {roles}; expected one of the user: leave --num_fewshot out")
    parts = _parts(messages[0], ("text", "image"))
    pictures = [part["url"] for part in parts if part["type"] == "image"]
    kinds = [part["type"] for part in parts]
    if kinds == sorted(kinds):  # all pictures first
        return ChatQuestion(pictures, "".join(part["text"] for part in parts if part["type"] == "text"), system)
    shown = [{"type": "image"} if part["type"] == "image" else part for part in parts]
    return ChatQuestion(pictures, shown, system)


def _parts(message: dict[str, Any], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts or []:
        if part["type"] not in kinds:
            raise EvaluationError(
                f"a message of role {message['role']} holds {part['type']}; expected {' or '.join(kinds)}: "
                f"leave this task out"
            )
    return list(parts or [])


def answer_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an answer from a task's `generation_kwargs`, as the published code took them.

    Answers are drawn where the temperature is above 0, whatever `do_sample` says; an answer has at most 2,000 tokens
    where a task sets no limit; `until` is what the task sets, and not lmms-eval's own.

    Raises:
        EvaluationError: for a setting that would change answers and cannot be followed.
    """
    given = dict(settings)
    options: dict[str, Any] = {}
    limit = given.pop("max_new_tokens", None)
    options["max_tokens"] = NOT_SET if limit is None else limit
    until = given.pop("until", None)
    if until is not None and until != INJECTED_UNTIL:
        options["stop"] = until if isinstance(until, str) else list(until)
    temperature = given.pop("temperature", None) or 0.0
    options["temperature"] = temperature
    if given.pop("do_sample", None) and not temperature:
        raise EvaluationError("do_sample is true and temperature 0; expected a temperature: set it by --gen_kwargs")
    sampling = {name: given.pop(name, None) for name in SAMPLING}
    if temperature:
        options.update({name: value for name, value in sampling.items() if value is not None})
    _refuse(given)
    return options


def _refuse(rest: dict[str, Any]) -> None:
    """What is left may be there where it changes nothing."""
    nothing = {"num_beams": (1, None), "image_aspect_ratio": AS_THEY_ARE, "repetition_penalty": (1, None)}
    for name, value in rest.items():
        allowed = nothing.get(name, ())
        if value not in allowed:
            known = f"expected {allowed[0]!r}" if allowed else "which FlashSloth does not have"
            raise EvaluationError(f"this task sets {name}={value!r}, {known}: set it by --gen_kwargs, or leave it out")


def device_of(device: str, local_rank: str | None, devices: int) -> str:
    """Where the model of one process of several goes: each has a CUDA device of its own.

    Args:
        device: as it was asked for.
        local_rank: of the process, as launchers put it into the environment; None where it is the only one.
        devices: CUDA devices there are.
    """
    if local_rank is None or devices == 0 or device not in ("auto", "cuda"):
        return device
    return f"cuda:{int(local_rank) % devices}"
