"""Who answers a benchmark: here a FlashSloth in this process; elsewhere a server, or another model of transformers.

In: what is asked, read as it is needed. Out: each one's place and its reply, as they get done. What could not be
answered comes as an error in its place, and is never scored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flashsloth.checkpoint.adapter import ADAPTER_WEIGHTS, base_digest, is_adapter, read_adapter
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.evaluation.task import EvaluationError
from flashsloth.inference.detokenizer import raw_text
from flashsloth.inference.load import load
from flashsloth.inference.options import Options
from flashsloth.inference.picture_resolution import check_resolution
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import Question
from flashsloth.model.loading.folders import SHIPPED, find_folder, shipped_folder
from flashsloth.model.loading.safetensors_files import weight_files

IMAGE_POLICY: Any = "official"
"""The published code's conversion of pictures, and lmms-eval's, and LLaVA's."""
LOCAL_RANK = "LOCAL_RANK"
"""A process's number on its machine, in the environment that a launcher makes."""
CHUNK_BYTES = 1 << 24
Asked = Generator[tuple[int, "Reply | Exception"], None, None]


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: not stripped.
        tokens: it was made of; None where nobody says.
        finish_reason: why it ended.
    """

    text: str
    tokens: int | None
    finish_reason: str


class Answerer(Protocol):
    """Answers questions about pictures.

    Attributes:
        name: what it is called in reports.
        packages: whose versions answers may hang on.
    """

    name: str
    packages: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """What answers, for the header of predictions: equal where answers would be."""

    def answers(self, items: Iterable[Item], settings: TaskSettings, seed: int) -> Asked:
        """(place in `items`, reply) as they get done."""


class FlashSlothAnswerer:
    """A FlashSloth in this process.

    Args:
        sloth: the model.
        name: what it is called in reports.
        told: what the header says of it beside its name, its precision and its views: digests, how it was quantized.
        resolution: see `AnswerOptions`.

    Attributes:
        sloth, name: as given.
    """

    packages: tuple[str, ...] = ("torch", "transformers", "tokenizers", "pillow")

    def __init__(
        self, sloth: FlashSloth, name: str, told: Mapping[str, Any] | None = None, resolution: str | None = None
    ) -> None:
        self.name = name
        self.sloth, self._told, self._resolution = sloth, dict(told or {}), resolution

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        return {
            "kind": "flashsloth",
            "name": self.name,
            **self._told,
            "dtype": str(self.sloth.dtype).removeprefix("torch."),
            "views": self.sloth.model.config.num_views,
            "resolution": self._resolution,
        }

    def answers(self, items: Iterable[Item], settings: TaskSettings, seed: int) -> Asked:
        """See :class:`Answerer`."""
        options: dict[str, Any] = {
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": seed,
            "details": True,
            "image_policy": IMAGE_POLICY,
        }
        if self._resolution is not None:
            options["resolution"] = self._resolution
        places: list[int] = []
        unread: list[tuple[int, Exception]] = []
        pairs = _pairs(items, places, unread)
        tokenizer = self.sloth.processor.tokenizer
        for number, answer in self.sloth.answer_as_ready(pairs, on_error="return", **options):
            if isinstance(answer, Exception):
                yield places[number], answer
            else:
                text = raw_text(answer.tokens, tokenizer)  # some rules see white space at either end
                yield places[number], Reply(text, len(answer.tokens), answer.finish_reason)
            while unread:
                yield unread.pop(0)
        yield from unread


def _pairs(
    items: Iterable[Item], places: list[int], unread: list[tuple[int, Exception]]
) -> Iterator[tuple[Any, Question]]:
    """(pictures, question) of items, whose places are noted; what cannot even be read is left out and noted."""
    for place, item in enumerate(items):
        try:
            pictures = read_pictures(item)
        except Exception as error:  # whatever a file of pictures may raise, it is this item's alone
            unread.append((place, error))
            continue
        places.append(place)
        parts: list[dict[str, Any]] = [
            {"type": "image"} if part is None else {"type": "text", "text": part} for part in item.parts
        ]
        yield (pictures[0] if len(pictures) == 1 else pictures or None), parts or item.prompt


def read_pictures(item: Item) -> list[Path | bytes]:
    """An item's pictures, as paths or encoded bytes, which `media` opens."""
    return [one() if callable(one) else one for one in item.pictures]


def prompt_parts(item: Item) -> list[str | int]:
    """A prompt as texts and numbers of pictures, from 0, in the order in which they are shown."""
    numbers = iter(range(len(item.pictures)))
    placed = [next(numbers) if part is None else part for part in item.parts]
    return [*placed, *numbers] if item.parts else [*numbers, item.prompt]


def load_flashsloth(
    model: str | None,
    name: str | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    resolution: str | None = None,
    adapter: str | None = None,
) -> FlashSlothAnswerer:
    """A FlashSloth, with the digests that tell it from others.

    Args:
        model: a folder, or a name on the hub; None for the small model.
        name: in reports; None for what its folder is called.
        device, dtype, quantize: see `load`.
        resolution: see `AnswerOptions`.
        adapter: a folder to take in place of the model that it was made for.

    Raises:
        EvaluationError: where the adapter was made for another model.
        LoadError, AdapterError, CheckpointError, SpeedError: see `load`.
        PromptError: for a resolution that the model does not have.
    """
    folder = shipped_folder() if model is None else find_folder(model)
    told: dict[str, Any] = {"quantize": quantize, "adapter": None}
    source = adapter or model
    if adapter is not None or is_adapter(folder):
        changes = read_adapter(folder if adapter is None else adapter)
        base = changes.base_folder()
        if adapter is not None and model is not None and base_digest(base) != base_digest(folder):
            raise EvaluationError(f"--adapter {adapter} was made for {base}, not for {model}: leave --model out")
        told["adapter"] = files_digest([changes.path / ADAPTER_WEIGHTS])
        folder = base
    sloth = load(source, device=device, dtype=dtype, quantize=quantize)
    check_resolution(Options(resolution=resolution).resolution, sloth.model.config)  # type: ignore[arg-type]
    told["digest"] = base_digest(folder)
    return FlashSlothAnswerer(sloth, name or short_name(source), told, resolution)


def short_name(model: str | None) -> str:
    """What a model is called in reports: the last part of its folder's path, or of its name."""
    return SHIPPED if model is None else Path(model).resolve().name if Path(model).exists() else model.split("/")[-1]


def weights_digest(folder: Path) -> str:
    """Of all weight files of a folder."""
    return files_digest(weight_files(folder))


def files_digest(files: Iterable[Path]) -> str:
    """Of what files hold, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                total.update(chunk)
    return f"sha256:{total.hexdigest()}"


def device_here(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """The device of a process that a launcher started beside others: each takes the accelerator of its number."""
    if device != "auto" or LOCAL_RANK not in environment:
        return device
    import torch

    return f"cuda:{environment[LOCAL_RANK]}" if torch.cuda.is_available() else device
