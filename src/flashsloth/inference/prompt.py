"""One conversation as a row of ids and marks, and several rows as a batch.

In: messages, and the processor that writes them down. Out: a :class:`Prompt` a conversation, and right-padded tensors
[B, T] of several.

Legend: B batch, T positions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from flashsloth.errors import PromptError
from flashsloth.model.prompt_layout import POSITION_TENSORS

Message = dict[str, Any]
Messages = list[Message]
Question = str | Sequence[dict[str, Any]]
"""A text after its pictures; or the parts of a message, `{"type": "text", "text": ...}` and `{"type": "image"}`, where
pictures stand between texts."""
FIELDS = ("input_ids", *POSITION_TENSORS)


@dataclass(frozen=True)
class Prompt:
    """One row, not padded: four lists of one length, as in `flashsloth.model.positions`."""

    input_ids: list[int]
    image_index: list[int]
    query_turn: list[int]
    question_turn: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)

    def columns(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """Id and marks of each position from `start` to `stop`."""
        return list(zip(*(getattr(self, name)[start:stop] for name in FIELDS), strict=True))

    def after(self, start: int) -> Prompt:
        """What stands from `start` on."""
        return Prompt(**{name: getattr(self, name)[start:] for name in FIELDS})

    def followed_by(self, tokens: Sequence[int]) -> Prompt:
        """The prompt with the first tokens of its answer, which are unmarked."""
        unmarked = {name: [*getattr(self, name), *[0] * len(tokens)] for name in POSITION_TENSORS}
        return Prompt([*self.input_ids, *tokens], **unmarked)

    @property
    def turns(self) -> int:
        """How many turns there are, by their query tokens."""
        return max(self.query_turn, default=0)

    def last_question_start(self) -> int:
        """Where the last turn's question starts: it and its queries must be run in one pass."""
        return self.question_starts()[-1]

    def question_starts(self) -> list[int]:
        """Where each turn's question starts; without any turn, the last position."""
        starts: dict[int, int] = {}
        for place, turns in enumerate(zip(self.question_turn, self.query_turn, strict=True)):
            for turn in turns:
                if turn:
                    starts.setdefault(turn, place)
        return [starts[turn] for turn in sorted(starts)] or [len(self) - 1]


def check_text(what: str, text: str) -> None:
    """Refuse half a character (a lone surrogate), which no tokenizer can read.

    Raises:
        PromptError: if there is one.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise PromptError(
            f"{what} holds half a character, {half!r}, at {error.start}; expected whole characters"
        ) from error


def _text_of(part: Any) -> str:
    """The text of a question's part; nothing of a picture's place."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    text = "" if kind == "image" else part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        raise PromptError(
            f"a part of the question is {kind!r}; expected {{'type': 'text', 'text': ...}} or {{'type': 'image'}}"
        )
    return text


class PromptWriter:
    """Writes conversations down with a model's processor, without its pictures' pixels.

    The same picture is asked about many times; its views are made once, elsewhere. Here only its place matters.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._lock = threading.Lock()  # a tokenizer may be set up by one thread at a time only

    @property
    def is_busy(self) -> bool:
        """Whether another thread writes now: one that must not wait lets a third one do it."""
        return self._lock.locked()

    def check_question(self, question: Any) -> None:
        """Refuse anything but a question.

        Raises:
            PromptError: if there is none.
        """
        text = "".join(map(_text_of, question)) if isinstance(question, list | tuple) else question
        if not isinstance(text, str):
            raise PromptError(f"the question is {type(question).__name__}; expected a text")
        if not text.strip():
            raise PromptError("the question is empty; expected a text, such as 'What is in the picture?'")
        check_text("the question", text)

    def text_ids(self, text: str, with_specials: bool) -> list[int]:
        """The ids of a text by itself, with what the tokenizer puts around one if so asked.

        Raises:
            PromptError: if it is no text that can be read.
        """
        check_text("the text", text)
        with self._lock:
            ids: list[int] = self._processor.tokenizer(text, add_special_tokens=with_specials)["input_ids"]
        return ids

    def user_message(self, question: Question, pictures: int) -> Message:
        """A user's turn: its pictures, then its question; or its parts as they stand.

        Raises:
            PromptError: where the parts have places for other than so many pictures.
        """
        if isinstance(question, str):
            parts: list[dict[str, Any]] = [{"type": "image"} for _ in range(pictures)]
            return {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
        places = sum(part["type"] == "image" for part in question)
        if places != pictures:
            raise PromptError(f"the question has places for {places} pictures, and {pictures} were given")
        return {"role": "user", "content": list(question)}

    def write(self, messages: Messages, system: str | None, resolution: str | None = None) -> Prompt:
        """The prompt of a conversation, up to where the answer starts; its pictures as at a resolution."""
        return self._write(messages, system, resolution, to_answer=True)

    def answer_ids(
        self, messages: Messages, answer: str, system: str | None, resolution: str | None = None
    ) -> tuple[int, ...]:
        """The ids of an answer as they follow the prompt of a conversation, the end token last.

        Raises:
            PromptError: where the chat template does not write a conversation as it writes its prompt.
        """
        prompt = self.write(messages, system, resolution).input_ids
        said = {"role": "assistant", "content": answer}
        ids = self._write([*messages, said], system, resolution, to_answer=False).input_ids
        end = self._processor.tokenizer.eos_token_id
        rest = ids[len(prompt) :]
        if ids[: len(prompt)] != prompt or not rest:
            raise PromptError(
                "this model's chat template writes answers otherwise than its prompts end: give no choices"
            )
        return (*(rest[: rest.index(end)] if end in rest else rest), end)

    def _write(self, messages: Messages, system: str | None, resolution: str | None, *, to_answer: bool) -> Prompt:
        opening = [] if system is None else [{"role": "system", "content": system}]
        with self._lock:
            row = self._processor.write_prompt(
                [*opening, *messages], add_generation_prompt=to_answer, resolution=resolution
            )
        return Prompt(**{name: row[name] for name in FIELDS})


def token_limit(prompt: Prompt, context: int | None, wanted: int) -> int:
    """The most tokens that an answer may have, of those `wanted`, in a model of so large a context (None for any).

    Raises:
        PromptError: if the prompt fills the context.
    """
    if context is None:
        return wanted
    left = context - len(prompt)
    if left < 1:
        visual = sum(place > 0 for place in prompt.image_index)
        raise PromptError(
            f"the prompt has {len(prompt):,} tokens ({visual:,} of them for pictures), and this model's context is "
            f"{context:,} with at least one for the answer: shorten the text, or give fewer pictures"
        )
    return min(wanted, left)


def context_of(model: Any) -> int | None:
    """Positions that a model takes; None for any number."""
    context: int | None = getattr(model.config.text_config, "max_position_embeddings", None)
    return context


def end_ids_of(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer."""
    stored = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(stored if isinstance(stored, list) else [stored])} - {None})


def pad_id_of(tokenizer: Any) -> int:
    """The id that stands where nothing does; nothing attends to it, so any will do for a tokenizer without one."""
    return next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if one is not None), 0)


def pad_right(prompts: Sequence[Prompt], pad_token_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Rows as tensors of one length, for causal passes: `FIELDS`, int64 [B, T]."""
    longest = max(map(len, prompts))
    made = {}
    for name in FIELDS:
        filler = pad_token_id if name == "input_ids" else 0
        rows = [[*getattr(prompt, name), *[filler] * (longest - len(prompt))] for prompt in prompts]
        made[name] = torch.tensor(rows, dtype=torch.long, device=device)
    return made
