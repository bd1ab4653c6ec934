"""Lets a server with OpenAI's chat interface answer a benchmark, so that another model stands beside FlashSloth.

In: items. Out: replies as the server has them. Pictures are opened as for FlashSloth, and sent as PNG in data URLs:
nothing of their pixels is lost. What the server refuses is an item that failed.
"""

from __future__ import annotations

import base64
import io
import queue
import threading
from collections.abc import Iterable
from typing import Any

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.answerer import IMAGE_POLICY, Asked, Reply, prompt_parts, read_pictures
from flashsloth.evaluation.chat_client import OWN, ChatClient, Patience
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.media import open_picture

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds a server's key."""
AT_ONCE = 4
"""Questions in flight: enough to keep a server at work, and few for one that answers one after the other."""
WAITING = 2
"""Questions read ahead, for each in flight."""


class ServerAnswerer:
    """A model behind an address.

    Args:
        url: of the interface, such as http://127.0.0.1:8000/v1.
        name: of the model there.
        at_once: questions in flight.
        patience: how long to wait for an answer.

    Raises:
        EvaluationError: where no server can have that address.
    """

    packages: tuple[str, ...] = ("pillow",)

    def __init__(self, url: str, name: str, at_once: int = AT_ONCE, patience: Patience | None = None) -> None:
        self.name = name
        self._at_once, self._patience = at_once, patience
        self._url = ChatClient(url, name, KEY_VARIABLE, patience).url

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        return {"kind": "server", "name": self.name, "url": self._url}

    def answers(self, items: Iterable[Item], settings: TaskSettings, seed: int) -> Asked:
        """See :class:`Answerer`."""
        client = ChatClient(self._url, self.name, KEY_VARIABLE, self._patience)
        asked: queue.SimpleQueue[tuple[int, Item, list[Any]] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Reply | Exception]] = queue.SimpleQueue()
        options: dict[str, Any] = {"max_tokens": settings.max_tokens, "temperature": settings.temperature}
        if settings.temperature:
            options |= {"top_p": settings.top_p, "seed": seed}
        if OWN in client.model_facts():  # then answers can be had as in process
            options[OWN] = {"raw_text": True}

        def work() -> None:
            while (one := asked.get()) is not None:
                place, item, pictures = one
                try:
                    reply = client.chat(_messages(item, pictures), **options)
                    done.put((place, Reply(reply.text, reply.tokens, reply.finish_reason)))
                except Exception as error:  # of this item alone; whoever asks tells what is wrong with all
                    done.put((place, error))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._at_once)]
        for thread in threads:
            thread.start()
        running = 0
        try:
            for place, item in enumerate(items):
                try:
                    asked.put((place, item, read_pictures(item)))
                except (FlashSlothError, OSError) as error:
                    done.put((place, error))
                running += 1
                if running >= self._at_once * (1 + WAITING):
                    yield done.get()
                    running -= 1
            for _ in range(running):
                yield done.get()
        finally:
            client.close()
            for _ in threads:
                asked.put(None)


def _messages(item: Item, pictures: list[Any]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for part in prompt_parts(item):
        if isinstance(part, int):
            content.append({"type": "image_url", "image_url": {"url": data_url(pictures[part])}})
        else:
            content.append({"type": "text", "text": part})
    return [{"role": "user", "content": content}]


def data_url(picture: Any) -> str:
    """A picture, opened and converted as for FlashSloth, as a PNG in a data URL."""
    file = io.BytesIO()
    open_picture(picture, image_policy=IMAGE_POLICY).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
