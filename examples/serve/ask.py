"""Ask a server about a picture with OpenAI's Python client: as a stream, in a form, and for where it looked.

flashsloth serve &
pip install openai
python examples/serve/ask.py photo.jpg "What color is the circle?"
"""

from __future__ import annotations

import base64
import mimetypes
import os
import sys
from pathlib import Path
from typing import Any, Literal

from openai import OpenAI
from pydantic import BaseModel

URL = os.environ.get("FLASHSLOTH_URL", "http://127.0.0.1:8000")


class Color(BaseModel):
    """What an answer in a form holds."""

    color: Literal["red", "green", "blue", "yellow", "purple", "orange", "black", "white", "other"]


def main(picture: str, question: str) -> None:
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("FLASHSLOTH_KEY", "none"))
    model = next(iter(client.models.list())).id
    kind = mimetypes.guess_type(picture)[0] or "image/png"
    data = f"data:{kind};base64,{base64.b64encode(Path(picture).read_bytes()).decode()}"
    messages: list[Any] = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": question}],
        }
    ]
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
    parsed = client.chat.completions.parse(model=model, messages=messages, response_format=Color)
    print(parsed.choices[0].message.parsed)
    looked: Any = client.chat.completions.create(
        model=model, messages=messages, extra_body={"flashsloth": {"attention": "sap"}}
    )
    [attention] = looked.choices[0].flashsloth["attention"]["pictures"]
    print(f"where it looked: a map of {attention['grid']}, of which the picture is {attention['box']}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or (str(Path(__file__).parents[1] / "shapes.png"), "What color is the circle?")))
