"""What clients ask: drawn pictures of many sizes, questions about them, and bodies of requests.

In: numbers. Out: the same picture, question and body for the same number, each time.
"""

from __future__ import annotations

import base64
import io
import json
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageDraw

from flashsloth.benchmark.serving.client import request

CHAT = "/v1/chat/completions"
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "gray")
SHAPES = ("circle", "square", "triangle")
LEAST_SIDE, MOST_SIDE = 24, 640
QUESTIONS = (
    "What color is the {shape}?",
    "How many {color} shapes are there?",
    "What is left of the {color} {shape}?",
    "Is there a {color} {shape}?",
    "Describe the picture.",
    "Which shape is {color}?",
)
NEVER_ENDS = "Describe everything that you can think of, and then count."
NOTHING = -1
"""In place of a picture's number: no picture."""


@dataclass(frozen=True)
class Question:
    """One that a client asks.

    Attributes:
        picture: its number; `NOTHING` for none.
        text: what is asked.
        tokens: of the answer, at most.
    """

    picture: int
    text: str
    tokens: int

    def body(self, **more: Any) -> dict[str, Any]:
        """Of a chat's request."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        if self.picture != NOTHING:
            parts.insert(0, {"type": "image_url", "image_url": {"url": data_url(self.picture)}})
        return {
            "model": "nano",
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": self.tokens,
            **more,
        }

    def request(self, **more: Any) -> bytes:
        """As it is sent."""
        return chat(self.body(**more))

    def stream(self, **more: Any) -> bytes:
        """As it is sent for an answer that comes piece by piece, with its count of tokens."""
        return self.request(stream=True, stream_options={"include_usage": True}, **more)


def chat(body: dict[str, Any]) -> bytes:
    """A chat's request as it is sent."""
    return request("POST", CHAT, json.dumps(body).encode())


def draw_question(number: int, pictures: int, tokens: int) -> Question:
    """A question about one of so many pictures."""
    chance = random.Random(number)
    text = chance.choice(QUESTIONS).format(color=chance.choice(COLORS), shape=chance.choice(SHAPES))
    return Question(chance.randrange(pictures), text, tokens)


@cache
def picture_bytes(number: int) -> bytes:
    """Some shapes on a ground, as a PNG; sizes are mixed."""
    chance = random.Random(f"picture {number}")
    width, height = (chance.randint(LEAST_SIDE, MOST_SIDE) for _ in range(2))
    picture = Image.new("RGB", (width, height), chance.choice(("white", "lightgray", "beige")))
    draw = ImageDraw.Draw(picture)
    for _ in range(chance.randint(1, 5)):
        side = chance.randint(4, max(5, min(width, height) // 2))
        left, top = chance.randint(0, width - side // 2), chance.randint(0, height - side // 2)
        box, kind, color = (left, top, left + side, top + side), chance.choice(SHAPES), chance.choice(COLORS)
        if kind == "circle":
            draw.ellipse(box, fill=color)
        elif kind == "square":
            draw.rectangle(box, fill=color)
        else:
            draw.polygon([(left, top + side), (left + side, top + side), (left + side / 2, top)], fill=color)
    held = io.BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()


@cache
def data_url(number: int) -> str:
    """A picture as clients send it."""
    return "data:image/png;base64," + base64.b64encode(picture_bytes(number)).decode()
