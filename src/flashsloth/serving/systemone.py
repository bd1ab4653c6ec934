"""POST /v1/systemone: closed questions about a state and its pictures, each answered by a probability for every option.

The shape is that of the servers which have this route (transformers', among others):

    state        a text, or any JSON, which stands before each question
    questions    name -> {"type", "instructions", "criteria"}
        choice   criteria {option: description or null}; the options are the answers that are scored
        noul     yes or no; criteria {"true": ..., "false": ...}, or none
        score    criteria [level, ...] from the least to the most; the levels' texts are scored
    assets       name -> {"data_base64"}: a picture, where its name stands in the state or in a question
    images       pictures before the state, data URLs or addresses

    answers      name -> {"type", "choice", "probabilities", "confidence"}
                         {"type", "noul"}, the probability of yes
                         {"type", "score", "legend", "probabilities", "confidence"}

Nothing is generated: each option is scored exactly, as an answer of the model to the question as it stands (as
`flashsloth ask --choice`). A picture is encoded once for all questions.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from flashsloth.errors import PromptError
from flashsloth.inference.answer import Answer
from flashsloth.inference.vision import PreparedPictures
from flashsloth.serving.api_error import invalid
from flashsloth.serving.asked import Asked
from flashsloth.serving.conversation import USER, ConversationReader, Parts
from flashsloth.serving.generation import Generation
from flashsloth.serving.looking import described_looking, looked_options
from flashsloth.serving.openai_schema import shown
from flashsloth.serving.service import Service
from flashsloth.serving.systemone_schema import (
    CHOICE,
    MOST_TEXT,
    NOUL,
    SCORE,
    SystemOneRequest,
    pictures_of,
    scored,
    text_of,
    where_of,
)


class Decisions:
    """All questions of one request.

    Args:
        body: the request.
        service: that answers it.

    Attributes:
        ignored: fields that change nothing.

    Raises:
        ApiError: 400, naming the field that cannot be used; 404 for another model.
    """

    def __init__(self, body: SystemOneRequest, service: Service) -> None:
        self._body, self._service = body, service
        if body.model is not None:
            service.check_model(body.model)
        self.ignored = body.ignored()
        self._state = text_of(body.state)
        self._pictures = pictures_of(body, self.ignored)
        most = service.config.max_pictures
        if len(self._pictures) > most:
            text = f"assets has {len(self._pictures)} pictures; expected at most {most}"
            raise invalid(text, "assets", "too_many_images")
        self._used: set[str] = set()
        self._options = {name: scored(one, where_of(name), self.ignored) for name, one in body.questions.items()}
        asked = {name: self._asked(name) for name in body.questions}
        for name in set(self._pictures) - self._used:
            raise invalid(
                f"assets has {shown(name)}, whose name stands nowhere: leave it out", where_of(name, "assets")
            )
        shared = _SharedPictures(service)
        self._generations = {name: Generation(service, one, shared) for name, one in asked.items()}

    async def answer(self) -> dict[str, Any]:
        """The reply.

        Raises:
            ApiError: if one of the questions cannot be answered.
        """
        groups = list(self._groups())
        answers: dict[str, Any] = {}
        with self._service.admitted(max(sum(one.asked.answers for one in group.values()) for group in groups)):
            for group in groups:
                try:
                    async with asyncio.TaskGroup() as tasks:
                        made = {name: tasks.create_task(one.answers()) for name, one in group.items()}
                except ExceptionGroup as errors:
                    raise errors.exceptions[0] from None
                answers |= {name: self._described(name, one.result()[0]) for name, one in made.items()}
        tokens = sum(one.prompt_tokens for one in self._generations.values())
        usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
        return {"model": self._service.name, "answers": answers, "usage": usage}

    def facts(self) -> dict[str, Any]:
        """What the log says of it."""
        every = list(self._generations.values())
        return {
            "pictures": max(len(one.asked.pictures) for one in every),
            "prompt_tokens": sum(one.prompt_tokens for one in every),
            "questions": len(every),
        }

    def _groups(self) -> Iterator[dict[str, Generation]]:
        """Questions that are answered at the same time: as many as have rows together."""
        group: dict[str, Generation] = {}
        rows = 0
        for name, one in self._generations.items():
            if group and rows + one.asked.answers > self._service.config.max_running:
                yield group
                group, rows = {}, 0
            group[name] = one
            rows += one.asked.answers
        yield group

    def _asked(self, name: str) -> Asked:
        """A question as the engine takes it."""
        question, where, options = self._body.questions[name], where_of(name), self._options[name]
        most = self._service.config.max_running + self._service.config.max_waiting
        if len(options.texts) > most:
            text = f"{where}.criteria has {len(options.texts)} options; this server scores at most {most} of a question"
            raise invalid(text, f"{where}.criteria")
        reader = self._service.reader(where)
        parts: Parts = [{"type": "image"} for _ in self._body.images or []]
        reader.pictures += self._body.images or []
        texts = (self._state, text_of(question.instructions), *options.described)
        if sum(map(len, texts)) > MOST_TEXT:
            raise invalid(f"{where} has more than {MOST_TEXT:,} characters, its state included: shorten it", where)
        for text in texts:
            parts += self._split(text, reader)
        if not any(part["type"] == "text" for part in parts):
            raise invalid(f"{where} asks nothing: expected instructions", f"{where}.instructions")
        reader.add(USER, parts, where)
        read = reader.read()
        given: Any = {"choices": options.texts, "system": read.system, **looked_options(self._body.flashsloth)}
        try:
            checked = self._service.sloth.checked(given)
        except PromptError as error:
            param = "flashsloth" if str(error).startswith("resolution") else f"{where}.criteria"
            raise invalid(f"{where}: {error}", param) from error
        return Asked(read.messages, read.pictures, checked, param=where)

    def _split(self, text: str, reader: ConversationReader) -> Parts:
        """Parts of a text: pictures where their names stand."""
        names = sorted(self._pictures, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        parts: Parts = []
        for place, piece in enumerate(pieces):
            if place % 2:
                self._used.add(piece)
                reader.pictures.append(self._pictures[piece])
                parts.append({"type": "image"})
            elif piece.strip():
                parts.append({"type": "text", "text": piece.strip()})
        return parts

    def _described(self, name: str, answer: Answer) -> dict[str, Any]:
        """The answer to a question."""
        kind, options = self._body.questions[name].type, self._options[name]
        probabilities = [answer.choices[text] for text in options.texts]
        by_name = dict(zip(options.names, probabilities, strict=True))
        asked = self._body.flashsloth
        generation = self._generations[name]
        own: dict[str, Any] = {}
        if asked is not None:
            own["flashsloth"] = described_looking(asked, generation, answer)
        if kind == NOUL:
            return {"type": NOUL, "noul": by_name["true"], **own}
        if kind == CHOICE:
            best = max(by_name, key=by_name.__getitem__)
            told: dict[str, Any] = {"choice": best, "probabilities": by_name}
            return {"type": CHOICE, **told, "confidence": choice_confidence(probabilities), **own}
        score = math.fsum(level * share for level, share in enumerate(probabilities))
        levels = self._body.questions[name].criteria
        assert isinstance(levels, list)
        told = {"score": score, "legend": dict(zip(options.names, levels, strict=True)), "probabilities": by_name}
        return {"type": SCORE, **told, "confidence": score_confidence(probabilities), **own}


class _SharedPictures:
    """Pictures of questions about the same ones, made ready once."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, asyncio.Lock()
        self._made: dict[tuple[tuple[str, ...], str | None], PreparedPictures] = {}

    async def prepare(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        """As :meth:`Pictures.prepare`."""
        key = tuple(sources), resolution
        async with self._lock:
            if key not in self._made:
                self._made[key] = await self._service.pictures.prepare(sources, resolution)
        return self._made[key]


def choice_confidence(probabilities: Sequence[float]) -> float:
    """How far the likeliest option is above chance: 0 where all are equally likely, 1 where one is certain."""
    chance = 1 / len(probabilities)
    return 1.0 if chance == 1 else max(0.0, (max(probabilities) - chance) / (1 - chance))


def score_confidence(probabilities: Sequence[float]) -> float:
    """How near levels are to the likeliest one: 0 where as far as levels that are all equally likely, 1 where it is."""
    count = len(probabilities)
    best = max(range(count), key=probabilities.__getitem__)
    distance = math.fsum(share * abs(level - best) for level, share in enumerate(probabilities))
    chance = math.fsum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return 1.0 if count == 1 else max(0.0, 1 - distance / chance)
