"""Small files of samples as the published ones are, in every format."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, kind)
    return buffer.getvalue()


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def record(number: int, pictures: int = 1, **changes: Any) -> dict[str, Any]:
    """A sample with pictures `0.png`, `1.png` ... named from its number on."""
    names = [f"{number + extra}.png" for extra in range(pictures)]
    marks = "<image>\n" * pictures
    made: dict[str, Any] = {
        "id": f"s{number}",
        "model": "gpt-4",
        "conversations": turns(f"{marks}What is in {number}?", f"a dog of {number} é"),
    }
    if names:
        made["image"] = names[0] if pictures == 1 else names
    return {**made, **changes}


def write_json(path: Path, records: list[Any], **layout: Any) -> Path:
    path.write_text(json.dumps(records, ensure_ascii=False, **layout), encoding="utf-8")
    return path


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def write_shard(path: Path, samples: list[tuple[str, dict[str, Any] | None, list[bytes]]]) -> Path:
    """A tar of (key, record or None, pictures)."""
    with tarfile.open(path, "w") as shard:
        for key, found, pictures in samples:
            members = [] if found is None else [(f"{key}.json", json.dumps(found).encode())]
            endings = ["jpg"] if len(pictures) == 1 else [f"{number}.png" for number in range(len(pictures))]
            members += [(f"{key}.{ending}", data) for ending, data in zip(endings, pictures, strict=True)]
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    return path


def texts_of(sample: Any) -> list[str]:
    """The words of a sample's messages."""
    words = []
    for message in sample.messages:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"]
        words.append("|".join(parts))
    return words


def pictures_in(sample: Any) -> list[Any]:
    return [
        part["image"]
        for message in sample.messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] == "image"
    ]
