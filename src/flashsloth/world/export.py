"""Writes a split of the world to disk: pictures, and one JSON file of conversations in LLaVA's layout.

In: a `World`, a folder, how many samples. Out: `FOLDER/images/000000.png` ... and `FOLDER/conversations.json`. The
folder takes its name last, when it is whole.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from flashsloth.whole_file import whole_folder
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
    world: "World",
    folder: str | Path,
    count: int,
    *,
    start: int = 0,
    image_format: str = "png",
    captions: bool = False,
    replace: bool = False,
) -> Path:
    """Writes samples `start` to `start + count - 1` and returns the path of the conversations' file.

    With `captions` each conversation is one request for a description; otherwise it holds all of a picture's questions.
    The folder appears whole, or not at all; one that holds something makes way only to `replace`, and only if it is
    such a set and nothing else.
    """
    if image_format not in FORMATS:
        raise ExportError(f"image format is {image_format!r}; choose one of {', '.join(FORMATS)}")
    if count < 1:
        raise ExportError(f"count is {count}; export at least one sample")
    if start < 0:
        raise ExportError(f"start is {start}; samples are numbered from 0")
    target = Path(folder)
    _check_free(target, replace=replace)
    with whole_folder(target) as work:
        (work / IMAGE_FOLDER).mkdir()
        records = []
        for index in range(start, start + count):
            sample = world.sample(index)
            name = f"{IMAGE_FOLDER}/{index:06d}.{image_format}"
            _save_image(sample, work / name)
            records.append(conversation(sample, f"{world.split}-{world.level}-{index:06d}", name, captions=captions))
        text = json.dumps(records, ensure_ascii=False, indent=1)
        (work / CONVERSATIONS_FILE).write_text(text, encoding="utf-8")
    logger.info("wrote %d pictures and %s", count, target / CONVERSATIONS_FILE)
    return target / CONVERSATIONS_FILE


def _check_free(target: Path, *, replace: bool) -> None:
    """The folder is new or empty, or a set that may be replaced."""
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target} is not a folder; name a folder, new or empty, to write the pictures into")
    held = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if not held:
        return
    if CONVERSATIONS_FILE not in held:
        raise ExportError(f"{target} is not empty and holds no set of pictures; name a new folder")
    if not replace:
        raise ExportError(f"{target} holds a set already; name a new folder, or replace that one (--force)")
    if set(held) != {CONVERSATIONS_FILE, IMAGE_FOLDER}:
        others = ", ".join(name for name in held if name not in (CONVERSATIONS_FILE, IMAGE_FOLDER))
        raise ExportError(f"{target} holds other things as well ({others}), so it is not replaced; name a new folder")


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
    if path.suffix == ".png":
        sample.image.save(path, "PNG", compress_level=1)
    else:
        sample.image.save(path, "JPEG", quality=JPEG_QUALITY)
