"""Training samples: conversations with their pictures, read from LLaVA's JSON or drawn by the world.

In: the sources of a recipe. Out: map-style datasets of :class:`Sample` (or of patch labels for the encoder's stage).
"""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from flashsloth.training.recipe import DataSource

if TYPE_CHECKING:
    from flashsloth.world import WorldSample

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_PLACEHOLDER = "<image>"


class DataError(ValueError):
    """A mistake in training data; names the file and the sample."""


@dataclass
class Sample:
    """One conversation.

    Attributes:
        messages: as the processor takes them, pictures inside.
        kinds: the kind of each answer, for evaluation.
        independent: whether each turn is a question of its own about the first turn's pictures.
        patches: what each patch of the one picture shows, int64 [P] a property, where that was asked for.
    """

    messages: list[dict[str, Any]]
    kinds: list[str] = field(default_factory=list)
    independent: bool = False
    patches: dict[str, np.ndarray] | None = None


class LlavaData(Dataset):
    """LLaVA's format: a list of `{"id", "image"?, "conversations": [{"from", "value"}]}`.

    `<image>` in the first human turn is moved to its front, as the published code does; a sample may name several
    pictures (a list), whose placeholders then all stand in front. Pictures are opened when a sample is read.
    """

    def __init__(self, path: str, images: str | None, independent: bool = False) -> None:
        self.path, self.images = Path(path), Path(images) if images else Path(path).parent
        self.independent = independent
        if not self.path.is_file():
            raise DataError(f"no data at {self.path}: expected a LLaVA JSON file")
        try:
            self.records = json.loads(self.path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path} is not JSON: {error}") from error
        if not isinstance(self.records, list) or not self.records:
            raise DataError(f"{self.path} holds {type(self.records).__name__}, expected a non-empty list of samples")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        where = f"{self.path}, sample {index} (id {record.get('id')!r})"
        named = record.get("image") or []
        names = [named] if isinstance(named, str) else list(named)
        turns = record.get("conversations")
        if not turns:
            raise DataError(f"{where} has no conversations")
        messages: list[dict[str, Any]] = []
        for place, turn in enumerate(turns):
            role = _ROLES.get(turn.get("from", ""))
            expected = ("user", "assistant")[place % 2]
            if role != expected:
                raise DataError(f"{where}: turn {place} is from {turn.get('from')!r}, expected the {expected}'s")
            messages.append({"role": role, "content": str(turn["value"])})
        text = messages[0]["content"].replace(_PLACEHOLDER, "").strip() if names else messages[0]["content"]
        pictures = [{"type": "image", "image": self._picture(name, where)} for name in names]
        messages[0]["content"] = [*pictures, {"type": "text", "text": text}]
        return Sample(messages, ["answer"] * (len(messages) // 2), self.independent)

    def _picture(self, name: str, where: str) -> Any:
        from flashsloth.media import PictureError, open_picture

        try:
            return open_picture(self.images / name)
        except PictureError as error:
            raise DataError(f"{where}: {error}") from error


class WorldData(Dataset):
    """Pictures drawn on the spot, with their questions as turns of one conversation, or with their caption.

    With a `patch_grid`, samples also say what each of its patches shows.
    """

    def __init__(self, source: DataSource, patch_grid: int | None = None) -> None:
        from flashsloth.world import World

        assert source.world is not None
        assert source.count is not None
        self.source, self.patch_grid = source, patch_grid
        self.world = World(seed=source.seed, split=source.split, level=source.world)

    def __len__(self) -> int:
        return self.source.count or 0

    def __getitem__(self, index: int) -> Sample:
        drawn = self.world.sample(index)
        picture = {"type": "image", "image": drawn.image}
        patches = None if self.patch_grid is None else patch_classes(drawn, self.patch_grid)
        if self.source.text == "caption":
            answer = {"role": "assistant", "content": drawn.caption}
            return Sample([{"role": "user", "content": [picture]}, answer], ["caption"], patches=patches)
        messages: list[dict[str, Any]] = []
        questions = drawn.questions[: self.source.most_turns]
        for question in questions:
            text = {"type": "text", "text": question.question}
            messages.append({"role": "user", "content": [text] if messages else [picture, text]})
            messages.append({"role": "assistant", "content": question.answer})
        return Sample(messages, [question.kind for question in questions], self.source.independent, patches)


class WorldPatches(Dataset):
    """Drawn pictures with what each patch shows: `{"image", "shape", "color", "character", "center"}`."""

    def __init__(self, source: DataSource, patch_grid: int) -> None:
        if source.world is None:
            raise DataError("the encoder stage learns from the drawn world: its data needs world:, not json:")
        self.drawn, self.patch_grid = WorldData(source), patch_grid

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.drawn.world.sample(index)
        return {"image": sample.image, **patch_classes(sample, self.patch_grid)}


def patch_classes(sample: WorldSample, grid: int) -> dict[str, np.ndarray]:
    """For each property int64 [grid * grid], what the patches of a drawn picture show."""
    labels = sample.patch_labels(grid)
    return {"shape": labels.shape, "color": labels.color, "character": labels.character, "center": labels.center}


class Joined(Dataset):
    """Several datasets one after the other."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.ends = list(np.cumsum([len(part) for part in parts]))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Any:
        part = bisect.bisect_right(self.ends, index)
        return self.parts[part][index - (int(self.ends[part - 1]) if part else 0)]


def conversations(sources: list[DataSource], patch_grid: int | None = None) -> Joined:
    """The dataset of a stage that learns answers; with a `patch_grid`, patches too.

    Raises:
        DataError: where patches are asked for of pictures that were not drawn.
    """
    parts: list[Any] = []
    for source in sources:
        if source.json is None:
            parts.append(WorldData(source, patch_grid))
        elif patch_grid is None:
            parts.append(LlavaData(source.json, source.images, source.independent))
        else:
            raise DataError(f"patch_loss needs drawn pictures (world:), but the data has json: {source.json}")
    return Joined(parts)


def patches(sources: list[DataSource], patch_grid: int) -> Joined:
    """The dataset of the encoder's stage."""
    return Joined([WorldPatches(source, patch_grid) for source in sources])


__all__ = ["DataError", "Joined", "LlavaData", "Sample", "WorldData", "WorldPatches", "conversations", "patches"]
