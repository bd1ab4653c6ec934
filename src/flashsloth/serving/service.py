"""What all routes of a server share: the model, its engine, the media workers, the figures.

In: a loaded :class:`FlashSloth` and a :class:`ServeConfig`. Out: generations, one for each request that was let in.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

from flashsloth.errors import EngineError, PromptError
from flashsloth.inference.options import Options
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import Messages, context_of
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.serving.api_error import ApiError, invalid, unavailable
from flashsloth.serving.asked import Asked
from flashsloth.serving.async_engine import AsyncEngine
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.conversation import ConversationReader
from flashsloth.serving.generation import Generation
from flashsloth.serving.metrics import Metrics
from flashsloth.serving.openai_schema import shown
from flashsloth.serving.pictures import Pictures
from flashsloth.serving.structured_output import Grammars

RED_PICTURE = "data:image/gif;base64,R0lGODdhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
"""Of one pixel: the first question about a picture is the server's own, so that no client's takes longer."""
FIRST_MESSAGES: Messages = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is it?"}]}
]
FIRST_OPTIONS = Options(SamplingParams(max_tokens=2))
MODERATE_TEXT = 1 << 16
"""Characters that take no time to speak of to become tokens."""


class Service:
    """One model, served.

    Args:
        sloth: the model.
        config: limits.

    Attributes:
        created: when it was made, in seconds since 1970.
        is_warm: whether everything that is paid once has been paid.
        is_draining: whether nothing new is let in.
    """

    def __init__(self, sloth: FlashSloth, config: ServeConfig) -> None:
        self.sloth, self.config = sloth, config
        self.metrics = Metrics()
        self.pictures = Pictures(sloth, config, self.metrics)
        self.grammars = Grammars.of(sloth)
        self.created = int(time.time())
        self.is_warm = self.is_draining = False
        self._engine: AsyncEngine | None = None
        self._most_characters = most_characters(sloth)

    @property
    def engine(self) -> AsyncEngine:
        """The engine, in the loop that the service was started in."""
        assert self._engine is not None
        return self._engine

    @property
    def name(self) -> str:
        """The model's own name, which replies carry."""
        return self.config.model_names[0]

    def reader(self, param: str, system: str | None = None) -> ConversationReader:
        """What takes in a request's messages, as many and as long as a prompt may hold; `param` holds them."""
        return ConversationReader(self.config.max_pictures, param, system, self._most_characters)

    def check_model(self, name: str) -> None:
        """Refuse a request for another model.

        Raises:
            ApiError: 404.
        """
        if name not in self.config.model_names:
            known = ", ".join(self.config.model_names)
            text = f"the model {shown(name)} is not served here; expected {known}"
            raise ApiError(HTTPStatus.NOT_FOUND, text, "model", "model_not_found")

    def described(self, name: str) -> dict[str, Any]:
        """One of the model's names, as OpenAI's clients read it, and what a page has to know."""
        config, limits = self.sloth.model.config, self.config
        own = {
            "hd": self.has_hd,
            "patch_grid": config.patch_grid,
            "max_pictures": limits.max_pictures,
            "max_body_bytes": limits.max_body_bytes,
            "max_tokens": limits.max_tokens,
        }
        return {"id": name, "object": "model", "created": self.created, "owned_by": "flashsloth", "flashsloth": own}

    @property
    def has_hd(self) -> bool:
        """Whether the model takes several views of a picture."""
        return self.sloth.model.config.num_views > 1

    @property
    def is_ready(self) -> bool:
        """Whether a request would be answered."""
        try:
            self.sloth.engine_thread.check()
        except EngineError:
            return False
        return self.is_warm and not self.is_draining

    async def start(self) -> None:
        """Start what runs beside the event loop, which this must be called in, and warm up."""
        self._engine = AsyncEngine(self.sloth.engine_thread, self.config.max_running, self.config.max_waiting)
        self.metrics.watch(self)
        await self.pictures.start()
        await asyncio.to_thread(self.sloth.warm_up)
        await Generation(self, Asked(FIRST_MESSAGES, (RED_PICTURE,), FIRST_OPTIONS)).answers()
        self.is_warm = True

    async def close(self) -> None:
        """End what runs beside the event loop."""
        self.is_draining = True
        await self.pictures.close()

    def check_room(self) -> None:
        """Refuse a request that has no chance, before its body is looked at.

        Raises:
            ApiError: as :meth:`admitted`.
        """
        if self.is_draining:
            raise unavailable("the server is ending: ask again", 1)
        self.engine.check_room()

    @contextmanager
    def admitted(self, answers: int) -> Iterator[None]:
        """A block in which so many answers count as accepted.

        Raises:
            ApiError: if the server answers nothing now, or too many wait already.
        """
        if self.is_draining:
            raise unavailable("the server is ending: ask again", 1)
        with self.engine.admit(answers):
            yield

    @asynccontextmanager
    async def generation(self, asked: Asked) -> AsyncGenerator[Generation]:
        """A block in which a request is answered.

        Raises:
            ApiError: as :meth:`admitted`.
        """
        with self.admitted(asked.answers):
            yield Generation(self, asked)


def most_characters(sloth: FlashSloth) -> int | None:
    """Characters beyond which a text cannot fit into the model's context, whatever it is; None for any number.

    A token has as many as the vocabulary's longest, at most. Texts of moderate length are always tried.
    """
    context = context_of(sloth.model)
    longest = max(map(len, sloth.processor.tokenizer.get_vocab()))
    return None if context is None else max(MODERATE_TEXT, context * longest)


def checked_options(given: dict[str, Any], service: Service) -> Options:
    """Options of an answer.

    Raises:
        ApiError: 400, naming the one that cannot be.
    """
    try:
        options = service.sloth.checked(given)  # type: ignore[arg-type]
        service.sloth.engine.sampler.check(options.params)
        return options
    except PromptError as error:
        name = re.match(r"[a-z_]+", str(error))
        raise invalid(str(error), name[0] if name and name[0] in given else None) from error
