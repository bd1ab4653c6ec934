"""A split of the world on disk: drawn once into a pack, or written as LLaVA's conversations.

A pack is drawn by many processes, and read again as often as training wants. In: a `World`, how many pictures, the
model's side and patches. Out: a folder:

    index.json               what was drawn; written last, so a folder that has it is complete
    00000.safetensors ...    of `shard_pictures` pictures each:
        pictures  uint8 [n, side, side, 3]    on a square, as the processor would lay them
        patches   uint8 [n, 4, grid*grid]     what each patch shows, properties in the order of PROPERTIES
        text      uint8 [bytes]               JSON: caption and questions, one picture's after the other's
        ends      int64 [n]                   where each picture's text ends
        digests   int64 [n]                   CRC-32 of each picture with all that belongs to it

Any sample is read by its number, without the others; a damaged one is an error. An interrupted drawing goes on with the
shards that lack.

Conversations are `FOLDER/images/000000.png` ... and `FOLDER/conversations.json`, in a folder that takes its name last,
when it is whole.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flashsloth.errors import FlashSlothError
from flashsloth.files import whole_file, whole_folder, write_whole
from flashsloth.media.views import resize_on_square
from flashsloth.world.patch_labels import PatchLabels
from flashsloth.world.question_templates import WORDINGS
from flashsloth.world.questions import Question
from flashsloth.world.world import World, WorldSample

FORMAT = 1
SHARD_PICTURES = 2048
INDEX_FILE, PLAN_FILE = "index.json", "drawing.json"
PROPERTIES = ("shape", "color", "character", "center")
logger = logging.getLogger(__name__)
FORMATS: dict[str, dict[str, Any]] = {"png": {"compress_level": 1}, "jpg": {"quality": 92}}
"""How pictures may be saved -> Pillow's options."""
CONVERSATIONS_FILE = "conversations.json"
IMAGE_FOLDER = "images"


class PackError(FlashSlothError, ValueError):
    """A pack that cannot be made or read."""


@dataclass(frozen=True)
class PackPlan:
    """What a pack holds.

    Attributes:
        seed, split, level, unknown: of the world.
        start, count: the first picture's number, and how many.
        side: of the square pictures, in px.
        grid: patches along a side.
        shard_pictures: that a file holds.
    """

    seed: int
    split: str
    level: int
    unknown: float
    start: int
    count: int
    side: int
    grid: int
    shard_pictures: int = SHARD_PICTURES

    @property
    def shards(self) -> int:
        """How many files it has."""
        return -(-self.count // self.shard_pictures)

    def numbers(self, shard: int) -> range:
        """The numbers of a shard's pictures."""
        first = self.start + shard * self.shard_pictures
        return range(first, min(first + self.shard_pictures, self.start + self.count))


@dataclass(frozen=True)
class PackedSample:
    """One picture, uint8 [side, side, 3], with what belongs to it."""

    picture: np.ndarray
    caption: str
    questions: list[Question]
    patches: PatchLabels


def draw_pack(
    plan: PackPlan, folder: str | Path, *, workers: int = 1, progress: Callable[[int], None] | None = None
) -> Path:
    """Draw a pack, and return its folder.

    Args:
        plan: what it is to hold.
        folder: where; new, or of the same pack whose drawing was interrupted.
        workers: processes that draw.
        progress: called with the number of further pictures that are done.

    Raises:
        PackError: for a folder that holds something else, or sizes that cannot be.
    """
    target = Path(folder)
    _check(plan, workers)
    if (target / INDEX_FILE).is_file():
        raise PackError(f"{target} is a finished pack: use it, or name another folder")
    target.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"format": FORMAT, **asdict(plan)}, indent=1)
    if not (target / PLAN_FILE).is_file() and any(target.iterdir()):
        raise PackError(f"{target} holds other files: name a new folder for the pack")
    if (target / PLAN_FILE).is_file() and (target / PLAN_FILE).read_text(encoding="utf-8") != told:
        raise PackError(f"{target} holds the beginning of another pack: remove it, or name another folder")
    write_whole(target / PLAN_FILE, told)
    left = [shard for shard in range(plan.shards) if not _shard_file(target, shard).is_file()]
    if progress is not None:
        progress(plan.count - sum(len(plan.numbers(shard)) for shard in left))
    for shard in _drawn(plan, target, left, workers):
        if progress is not None:
            progress(len(plan.numbers(shard)))
    write_whole(target / INDEX_FILE, told)
    (target / PLAN_FILE).unlink()
    return target


class Pack:
    """A pack that is there. Each process opens its own files, when it first reads one.

    Attributes:
        plan: what it holds.

    Raises:
        PackError: if there is none, or not a whole one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX_FILE
        if not index.is_file():
            state = "is not finished" if (self.folder / PLAN_FILE).is_file() else "is not there"
            raise PackError(
                f"the pack {self.folder} {state}: draw it with `flashsloth world {self.folder} --format pack`"
            )
        told = json.loads(index.read_text(encoding="utf-8"))
        if told.pop("format", None) != FORMAT:
            raise PackError(f"{index} is of another version: draw the pack again")
        self.plan = PackPlan(**told)
        missing = [shard for shard in range(self.plan.shards) if not _shard_file(self.folder, shard).is_file()]
        if missing:
            raise PackError(f"{self.folder} lacks {_shard_file(self.folder, missing[0]).name}: draw the pack again")
        self._files: dict[int, Any] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return self.plan.count

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def __getitem__(self, index: int) -> PackedSample:
        """The sample of this number, from 0.

        Raises:
            PackError: if it is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        shard, row = divmod(index, self.plan.shard_pictures)
        try:
            picture, patches, text, digest = self._read(shard, row)
        except SafetensorError as error:
            raise PackError(f"{_shard_file(self.folder, shard)} cannot be read: {error}") from error
        if _digest(picture, patches, text) != digest:
            raise PackError(f"{_shard_file(self.folder, shard)} is damaged at its picture {row}: draw the pack again")
        told = json.loads(text)
        labels = PatchLabels(**dict(zip(PROPERTIES, patches.astype(np.int64), strict=True)))
        return PackedSample(picture, told["caption"], [Question(*asked) for asked in told["questions"]], labels)

    def _read(self, shard: int, row: int) -> tuple[np.ndarray, np.ndarray, bytes, int]:
        if self._process != os.getpid():  # a file that another process opened is not shared with it
            self._files, self._process = {}, os.getpid()
        if shard not in self._files:
            self._files[shard] = safe_open(_shard_file(self.folder, shard), framework="numpy")
        file = self._files[shard]
        ends = file.get_slice("ends")[max(0, row - 1) : row + 1]
        first, last = (0, int(ends[0])) if row == 0 else (int(ends[0]), int(ends[1]))
        picture, patches = file.get_slice("pictures")[row : row + 1][0], file.get_slice("patches")[row : row + 1][0]
        text = file.get_slice("text")[first:last].tobytes()
        return picture, patches, text, int(file.get_slice("digests")[row : row + 1][0])


def _check(plan: PackPlan, workers: int) -> None:
    for name, value in (("count", plan.count), ("side", plan.side), ("grid", plan.grid), ("workers", workers)):
        if value < 1:
            raise PackError(f"{name} is {value}; expected 1 or more")
    if plan.side % plan.grid:
        raise PackError(f"side is {plan.side} px and grid {plan.grid}: patches need a whole number of pixels")
    World(plan.seed, plan.split, plan.level, plan.unknown)


def _drawn(plan: PackPlan, folder: Path, shards: list[int], workers: int) -> Any:
    """Draw shards and yield the number of each that is done."""
    if workers == 1:
        for shard in shards:
            yield _draw_shard(plan, folder, shard)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_draw_shard, plan, folder, shard) for shard in shards]):
            yield future.result()


def _draw_shard(plan: PackPlan, folder: Path, shard: int) -> int:
    world = World(plan.seed, plan.split, plan.level, plan.unknown)
    rows = [_row(world.sample(number), plan) for number in plan.numbers(shard)]
    pictures, patches, texts = (list(column) for column in zip(*rows, strict=True))
    tensors = {
        "pictures": np.stack(pictures),
        "patches": np.stack(patches),
        "text": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "ends": np.cumsum([len(text) for text in texts]),
        "digests": np.array([_digest(*row) for row in rows], dtype=np.int64),
    }
    with whole_file(_shard_file(folder, shard)) as unfinished:
        save_file(tensors, unfinished)
    return shard


def _row(sample: WorldSample, plan: PackPlan) -> tuple[np.ndarray, np.ndarray, bytes]:
    """A sample's picture, patches and text."""
    square = resize_on_square(sample.image, plan.side, Image.Resampling.BICUBIC)
    labels = sample.patch_labels(plan.grid)
    patches = np.stack([getattr(labels, name) for name in PROPERTIES]).astype(np.uint8)
    questions = [[question.kind, question.question, question.answer] for question in sample.questions]
    text = json.dumps({"caption": sample.caption, "questions": questions}, ensure_ascii=False).encode()
    return np.asarray(square), patches, text


def _digest(picture: np.ndarray, patches: np.ndarray, text: bytes) -> int:
    return crc32(text, crc32(np.ascontiguousarray(patches).tobytes(), crc32(picture.tobytes())))


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.safetensors"


class ExportError(FlashSlothError, ValueError):
    """An export that cannot be made."""


def export_split(
    world: World,
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
            sample.image.save(work / name, **FORMATS[image_format])
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


def conversation(sample: WorldSample, identity: str, image: str, *, captions: bool = False) -> dict[str, Any]:
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
