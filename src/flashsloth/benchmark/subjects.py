"""Everything that can be measured, by name, and the suites that measure it. Nothing is loaded here.

In: names. Out: :class:`SubjectSpec`, what a worker is told to make; and :class:`Suite`, who runs beside whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flashsloth.benchmark.errors import BenchmarkError

Kind = Literal["flashsloth", "shipped", "peer"]
ITEM_BYTES = {"bfloat16": 2, "float32": 4}
STANDARD_GRID, HD_GRID = 1, 2
FLASHSLOTH_PARAMETERS = 3.196e9
NANO_PARAMETERS = 6.1e6


@dataclass(frozen=True)
class SubjectSpec:
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
        varies: the subject that this is another form of (another precision, not sped up); None if of none.
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
    """Subjects that are measured together.

    Attributes:
        device: where.
        names: of subjects; all others run beside the first, in turns.
        batch: rows of the batched job.
        batched: which subjects do it.
        busy: which subjects answer about many pictures, on an accelerator (see `device_bench.py`).
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
    SubjectSpec(_FIRST, "FlashSloth", "flashsloth", _OWN),
    SubjectSpec("flashsloth-hd", "FlashSloth-HD", "flashsloth", _OWN, grid=HD_GRID),
    SubjectSpec("flashsloth-int8", "FlashSloth int8", "flashsloth", _OWN, quantize="int8", varies=_FIRST),
    SubjectSpec("flashsloth-int4", "FlashSloth int4", "flashsloth", _OWN, quantize="int4", varies=_FIRST),
    SubjectSpec("flashsloth-f32", "FlashSloth float32", "flashsloth", _OWN, dtype="float32", varies=_FIRST),
    SubjectSpec("flashsloth-plain", "FlashSloth, not sped up", "flashsloth", _OWN, optimize=False, varies=_FIRST),
    SubjectSpec("qwen2-vl-2b", "Qwen2-VL-2B", "peer", 2.21e9, optimize=False),
    SubjectSpec("internvl2-2b", "InternVL2-2B", "peer", 2.21e9, optimize=False),
    SubjectSpec("minicpm-v2", "MiniCPM-V 2", "peer", 3.15e9, optimize=False),
    SubjectSpec("smolvlm-2.2b", "SmolVLM-2.2B", "peer", 2.25e9, optimize=False),
    SubjectSpec("lfm2-vl-1.6b", "LFM2-VL-1.6B", "peer", 1.58e9, optimize=False),
    SubjectSpec(_NANO, "Nano", "shipped", NANO_PARAMETERS, dtype="float32"),
    SubjectSpec(
        "nano-plain", "Nano, not sped up", "shipped", NANO_PARAMETERS, dtype="float32", optimize=False, varies=_NANO
    ),
)
SUBJECTS: dict[str, SubjectSpec] = {spec.name: spec for spec in ALL}
PEER_NAMES = tuple(spec.name for spec in ALL if spec.kind == "peer")
QUICK = "quick"
SUITES: dict[str, Suite] = {
    "cpu": Suite(
        "cpu",
        (
            "flashsloth",
            *PEER_NAMES,
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
        ("flashsloth", *PEER_NAMES, "flashsloth-hd", "flashsloth-int8", "flashsloth-int4", "flashsloth-plain"),
        batch=32,
        batched=("flashsloth", "flashsloth-hd", *PEER_NAMES),
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


def find_subjects(names: Sequence[str]) -> list[SubjectSpec]:
    """Subjects by their names, in the order given.

    Raises:
        BenchmarkError: if there are none, one is unknown, or one comes twice.
    """
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown or not names:
        found = f"there is no subject {unknown[0]!r}" if unknown else "no subject is named"
        raise BenchmarkError(f"{found}; expected some of {', '.join(SUBJECTS)}")
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"the subject {twice!r} is named twice; expected each once")
    return [SUBJECTS[name] for name in names]
