"""What is measured: models that do the standard job, by name, and the suites that measure them. Nothing is loaded here.

In: how much text, how many new tokens, and a seed. Out: a :class:`StandardJob`: pictures already in memory, and token
ids; no tokenizer, since speed does not depend on what is said, and no words: each model gets ids of its own vocabulary.

    opening | picture | question | closing        the text in that order, as in "... USER: <image> Why? ASSISTANT:"

Every picture of a run is a new one, so that nothing a model remembers of an earlier run helps it.

In: names. Out: :class:`ModelSpec`, what a worker is told to make; and :class:`Suite`, who runs beside whom.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image
from torch import nn

from flashsloth.benchmark.timing import LANGUAGE, Parts, StageClock
from flashsloth.errors import BenchmarkError
from flashsloth.planning import NEW_TOKENS, OPENING_SHARE, TEXT_TOKENS
from flashsloth.planning.flops import check_counts

WIDTH, HEIGHT = 640, 480
"""Of every picture, in pixels."""
CLOSING_TOKENS = 4
"""What stands after the question: "ASSISTANT:"."""
LEAST_TEXT_TOKENS = 8
LEAST_NEW_TOKENS = 2
"""One, and no time from token to token could be told."""
PICTURES, OPENING, QUESTIONS, CLOSING = range(4)
"""Streams of random numbers, so that changing one thing changes nothing else."""
Kind = Literal["flashsloth", "shipped", "peer"]
BASELINE: Kind = "peer"
"""As files of results call it."""
ITEM_BYTES = {"bfloat16": 2, "float32": 4}
STANDARD_GRID, HD_GRID = 1, 2
FLASHSLOTH_PARAMETERS = 3.196e9
NANO_PARAMETERS = 6.1e6


class BenchmarkModel(ABC):
    """A model that does the standard job.

    Attributes:
        model: what is run.
        visual_tokens: what the language model reads of one picture.
        positions: of one prompt: its text, its visual tokens, and what else its model puts there.
    """

    model: nn.Module
    visual_tokens: int
    positions: int

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """Stage -> the modules that are run in it; looked up each time, since making a model faster changes it."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """What makes logits: called once a step."""

    @property
    @abstractmethod
    def step_bytes(self) -> int:
        """Bytes of weights that one generated token reads."""

    @property
    @abstractmethod
    def key_value_bytes(self) -> int:
        """Bytes of keys and values a position."""

    @property
    def recorded(self) -> int:
        """Passes that were recorded so far: while time is taken, there may be none.

        Raises:
            BenchmarkError: if some that should be could not be, so that no time means anything.
        """
        return 0

    @abstractmethod
    def answer(self, picture: Image.Image, question: int, new_tokens: int, clock: StageClock) -> None:
        """Do the job: `new_tokens` tokens about a picture in memory, each stamped when its id is known."""

    @abstractmethod
    def answer_batch(self, pictures: Sequence[Image.Image], new_tokens: int) -> None:
        """As many jobs at once, each about its own picture."""

    def answer_all(self, pictures: Sequence[Image.Image], new_tokens: int, rows: int) -> None:
        """A question about each of many pictures, as fast as it goes with `rows` at once."""
        for start in range(0, len(pictures), rows):
            self.answer_batch(pictures[start : start + rows], new_tokens)

    def forget(self) -> None:
        """Give up what is remembered of pictures; by itself a model remembers nothing."""
        return

    @property
    def parameters(self) -> int:
        """Numbers in all; those that are shared count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def step_weights(parts: Parts, embeddings: nn.Module) -> int:
    """Numbers that one generated token reads: the language model and its head, of the embeddings one row at most.

    A head that shares its matrix with the embeddings reads it whole.
    """
    language, *head = parts[LANGUAGE]
    table = {id(parameter) for parameter in embeddings.parameters()}
    body = sum(p.numel() for p in language.parameters() if id(p) not in table)
    return body + sum(p.numel() for module in head for p in module.parameters())


@dataclass(frozen=True)
class Text:
    """Token ids of one prompt, without its picture."""

    opening: list[int]
    question: list[int]
    closing: list[int]


@dataclass(frozen=True)
class StandardJob:
    """One picture, some text, greedy decoding, a forced number of new tokens.

    Attributes:
        text_tokens: of the prompt, visual and query tokens not counted.
        new_tokens: of the answer; nothing ends it earlier.
        seed: of pictures, ids and weights.

    Raises:
        BenchmarkError: for numbers that make no job.
    """

    text_tokens: int = TEXT_TOKENS
    new_tokens: int = NEW_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, text_tokens=LEAST_TEXT_TOKENS, new_tokens=LEAST_NEW_TOKENS, seed=0)

    def picture(self, number: int) -> Image.Image:
        """Coloured noise, RGB; another number, another picture."""
        import numpy as np
        from PIL import Image

        generator = np.random.default_rng((self.seed, PICTURES, number))
        return Image.fromarray(generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))

    def text(self, vocabulary: int, forbidden: Collection[int], question: int = 0) -> Text:
        """Ids below `vocabulary`, none of them forbidden; another number, another question."""
        opening = min(round(self.text_tokens * OPENING_SHARE), self.text_tokens - CLOSING_TOKENS - 1)
        asked = self.text_tokens - opening - CLOSING_TOKENS
        return Text(
            opening=self._ids(opening, vocabulary, forbidden, OPENING, 0),
            question=self._ids(asked, vocabulary, forbidden, QUESTIONS, question),
            closing=self._ids(CLOSING_TOKENS, vocabulary, forbidden, CLOSING, 0),
        )

    def _ids(self, count: int, vocabulary: int, forbidden: Collection[int], stream: int, number: int) -> list[int]:
        generator = random.Random(f"{self.seed} {stream} {number}")
        ids: list[int] = []
        while len(ids) < count:
            drawn = generator.randrange(vocabulary)
            if drawn not in forbidden:
                ids.append(drawn)
        return ids


@dataclass(frozen=True)
class ModelSpec:
    """A model, its precision, and what is done to it.

    Attributes:
        name: what it is called on the command line.
        title: what it is called in reports.
        kind: "flashsloth" at its published size, the small one that is "shipped", or a "peer".
        parameters: as published, for knowing beforehand whether it fits; the report counts them.
        dtype: of weights and computation.
        quantize: "int8" or "int4", or None.
        grid: views along one side of a FlashSloth-HD's picture; 1 for the standard model.
        optimize: whether it is sped up, as `load` does.
        varies: the model that this is another form of (another precision, not sped up); None if of none.
    """

    name: str
    title: str
    kind: Kind
    parameters: float
    dtype: str = "bfloat16"
    quantize: str | None = None
    grid: int = STANDARD_GRID
    optimize: bool = True
    varies: str | None = None

    @property
    def bytes(self) -> float:
        """Memory of its weights, before they are quantized."""
        return self.parameters * ITEM_BYTES[self.dtype]

    @property
    def precision(self) -> str:
        """What its language model's weights are stored as."""
        return self.quantize or self.dtype


@dataclass(frozen=True)
class Suite:
    """Models that are measured together.

    Attributes:
        device: where.
        names: of models; all others run beside the first, in turns.
        batch: rows of the batched job.
        batched: which models do it.
        busy: which models answer about many pictures, on an accelerator (see `device.py`).
        trained: which models train there.
    """

    device: str
    names: tuple[str, ...]
    batch: int
    batched: tuple[str, ...]
    busy: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()


_OWN = FLASHSLOTH_PARAMETERS
_FIRST, _NANO = "flashsloth", "nano"
ALL = (
    ModelSpec(_FIRST, "FlashSloth", "flashsloth", _OWN),
    ModelSpec("flashsloth-hd", "FlashSloth-HD", "flashsloth", _OWN, grid=HD_GRID),
    ModelSpec("flashsloth-int8", "FlashSloth int8", "flashsloth", _OWN, quantize="int8", varies=_FIRST),
    ModelSpec("flashsloth-int4", "FlashSloth int4", "flashsloth", _OWN, quantize="int4", varies=_FIRST),
    ModelSpec("flashsloth-f32", "FlashSloth float32", "flashsloth", _OWN, dtype="float32", varies=_FIRST),
    ModelSpec("flashsloth-plain", "FlashSloth, not sped up", "flashsloth", _OWN, optimize=False, varies=_FIRST),
    ModelSpec("qwen2-vl-2b", "Qwen2-VL-2B", "peer", 2.21e9, optimize=False),
    ModelSpec("internvl2-2b", "InternVL2-2B", "peer", 2.21e9, optimize=False),
    ModelSpec("minicpm-v2", "MiniCPM-V 2", "peer", 3.15e9, optimize=False),
    ModelSpec("smolvlm-2.2b", "SmolVLM-2.2B", "peer", 2.25e9, optimize=False),
    ModelSpec("lfm2-vl-1.6b", "LFM2-VL-1.6B", "peer", 1.58e9, optimize=False),
    ModelSpec(_NANO, "Nano", "shipped", NANO_PARAMETERS, dtype="float32"),
    ModelSpec(
        "nano-plain", "Nano, not sped up", "shipped", NANO_PARAMETERS, dtype="float32", optimize=False, varies=_NANO
    ),
)
MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in ALL}
BASELINE_NAMES = tuple(spec.name for spec in ALL if spec.kind == BASELINE)
QUICK = "quick"
SUITES: dict[str, Suite] = {
    "cpu": Suite(
        "cpu",
        (
            "flashsloth",
            *BASELINE_NAMES,
            "flashsloth-hd",
            "flashsloth-int8",
            "flashsloth-int4",
            "flashsloth-plain",
            "flashsloth-f32",
        ),
        batch=8,
        batched=("flashsloth", "nano"),
    ),
    "gpu": Suite(
        "cuda",
        ("flashsloth", *BASELINE_NAMES, "flashsloth-hd", "flashsloth-int8", "flashsloth-int4", "flashsloth-plain"),
        batch=32,
        batched=("flashsloth", "flashsloth-hd", *BASELINE_NAMES),
        busy=("flashsloth", "flashsloth-hd", "flashsloth-int8", "flashsloth-int4", "qwen2-vl-2b", "internvl2-2b"),
        trained=("flashsloth", "qwen2-vl-2b", "internvl2-2b"),
    ),
    QUICK: Suite("cpu", ("nano", "nano-plain"), batch=8, batched=("nano",)),
}


def find_suite(name: str) -> Suite:
    """A suite by its name.

    Raises:
        BenchmarkError: if there is none.
    """
    if name not in SUITES:
        raise BenchmarkError(f"there is no suite {name!r}; expected one of {', '.join(SUITES)}")
    return SUITES[name]


def find_models(names: Sequence[str]) -> list[ModelSpec]:
    """Models by their names, in the order given.

    Raises:
        BenchmarkError: if there are none, one is unknown, or one comes twice.
    """
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        found = f"there is no model {unknown[0]!r}" if unknown else "no model is named"
        raise BenchmarkError(f"{found}; expected some of {', '.join(MODELS)}")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"the model {twice!r} is named twice; expected each once")
    return [MODELS[name] for name in names]
