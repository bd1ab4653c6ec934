"""Writes a split of the world to disk: pictures, and one JSON file of conversations in LLaVA's layout.

In: a `World`, a folder, how many samples. Out: `FOLDER/images/000000.png` ... and `FOLDER/conversations.json`, which
appears last and whole, so that a folder that has it is complete.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from flashsloth.whole_file import whole_file, write_whole
from flashsloth.world.wordings import WORDINGS

if TYPE_CHECKING:
    from flashsloth.world.world import World, WorldSample

logger = logging.getLogger(__name__)

FORMATS = ("png", "jpg")
JPEG_QUALITY = 92
CONVERSATIONS_FILE = "conversations.json"
IMAGE_FOLDER = "images"


class ExportError(ValueError):
    """An export that cannot be made."""


def export_split(
    world: "World", folder: str | Path, count: int, *, start: int = 0, image_format: str = "png", captions: bool = False
) -> Path:
    """Writes samples `start` to `start + count - 1` and returns the path of the conversations' file.

    With `captions` each conversation is one request for a description; otherwise it holds all of a picture's questions.
    """
    if image_format not in FORMATS:
        raise ExportError(f"image format is {image_format!r}; choose one of {', '.join(FORMATS)}")
    if count < 1:
        raise ExportError(f"count is {count}; export at least one sample")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is not a folder; name a folder, new or old, to write the pictures into")
    (target / IMAGE_FOLDER).mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(start, start + count):
        sample = world.sample(index)
        name = f"{IMAGE_FOLDER}/{index:06d}.{image_format}"
        _save_image(sample, target / name)
        records.append(conversation(sample, f"{world.split}-{world.level}-{index:06d}", name, captions=captions))
    path = target / CONVERSATIONS_FILE
    write_whole(path, json.dumps(records, ensure_ascii=False, indent=1))
    logger.info("wrote %d pictures and %s", count, path)
    return path


def conversation(sample: "WorldSample", identity: str, image: str, *, captions: bool = False) -> dict[str, Any]:
    """One sample as LLaVA's record: the picture's name, and turns of "human" and "gpt"."""
    if captions:
        requests = WORDINGS["caption"]
        pairs = [(requests[crc32(identity.encode()) % len(requests)], sample.caption)]
    else:
        pairs = [(question.question, question.answer) for question in sample.questions]
    turns = []
    for number, (question, answer) in enumerate(pairs):
        turns.append({"from": "human", "value": f"<image>\n{question}" if number == 0 else question})
        turns.append({"from": "gpt", "value": answer})
    return {"id": identity, "image": image, "conversations": turns}


def _save_image(sample: "WorldSample", path: Path) -> None:
    with whole_file(path) as unfinished:
        if path.suffix == ".png":
            sample.image.save(unfinished, "PNG", compress_level=1)
        else:
            sample.image.save(unfinished, "JPEG", quality=JPEG_QUALITY)
