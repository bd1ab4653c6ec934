"""What every group of keys of a recipe has, and the groups inside a stage: its data, adapter, engine, feature cache.

Fields are strict, and each says what `--resume` does with a new value. What the files of `data:` hold is read in
`data/`. `engine:` is how a stage is laid out over devices:

kind     a device holds of                       weights   gradients   optimizer
ddp      the model, whole                        all       all         all
fsdp2    each layer's share (torch)              1/n       1/n         1/n
zero2    weights whole (DeepSpeed)               all       1/n         1/n
zero3    each parameter's share (DeepSpeed)      1/n       1/n         1/n
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from flashsloth.errors import FlashSlothError
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.yaml_file import Expected, Problem, StrictModel, found, listed


class RecipeError(FlashSlothError, ValueError):
    """A mistake in a recipe."""


@dataclass(frozen=True)
class OnResume:
    """What becomes of a run that goes on with another value of a field.

    Attributes:
        kind: `free`: nothing that is learned depends on it; `from_here`: it holds from the step at which the run goes
            on; `fixed`: it is refused.
        why: of what is refused.
    """

    kind: Literal["free", "from_here", "fixed"]
    why: str = ""


FREE = OnResume("free")
FROM_HERE = OnResume("from_here")


def fixed(why: str) -> OnResume:
    """Refused on resume, and why: a clause."""
    return OnResume("fixed", why)


class RecipeModel(StrictModel):
    """A group of a recipe's keys; every field stands beside :data:`FREE`, :data:`FROM_HERE` or :func:`fixed`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        silent = [name for name in cls.model_fields if cls.on_resume(name) is None]
        if silent:
            raise TypeError(f"{cls.__name__}.{', '.join(silent)}: say FREE, FROM_HERE or fixed(why), for --resume")

    @classmethod
    def on_resume(cls, name: str) -> OnResume | None:
        """What a field says of itself."""
        return next((rule for rule in cls.model_fields[name].metadata if isinstance(rule, OnResume)), None)


MOST = 1_000_000_000
"""Of what is counted: more is a slip, and needs more memory than there is to be refused in time."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Samples = Annotated[int, Field(ge=1, le=1_000_000)]
"""In a step."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Room is left below 2**32 for what steps and processes add to it."""
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


PARTS = ("vision_config", "text_config")
ALIKE = 0.85
"""How near a key of a part has to be to a known one to be taken for a slip: parts may have fields of older versions."""


def check_model_fields(fields: dict[str, Any]) -> None:
    """Refuse keys that would be taken and have no effect.

    Raises:
        RecipeError: listing them.
    """
    known = [field.name for field in dataclasses.fields(FlashSlothConfig)]
    mistakes = []
    for key in fields:
        if key not in (*known, "model_type"):
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            mistakes.append(f"{key}: unknown key, {hint}")
    for part in PARTS:
        group = fields.get(part, {})
        if not isinstance(group, dict):
            mistakes.append(f"{part}: found {found(group)}, expected a group of keys")
            continue
        for key, near in _slips(group):
            mistakes.append(f"{part}.{key}: unknown key, did you mean {near}?")
    if mistakes:
        raise RecipeError(listed("the recipe", [f"model.config.{mistake}" for mistake in mistakes]))


def _slips(group: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys of a part that its configuration does not have, and the one that each is like."""
    name = group.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        return []  # which the configuration says itself
    kind: Any = CONFIG_MAPPING[name]
    if not dataclasses.is_dataclass(kind):
        return []
    known = [*(field.name for field in dataclasses.fields(kind)), *CONFIG_MAPPING[name].attribute_map]
    unknown = [str(key) for key in group if key not in known]
    return [(key, near) for key in unknown for near in difflib.get_close_matches(key, known, n=1, cutoff=ALIKE)]


AUTO = "auto"
UNQUANTIZED, NF4 = "none", "nf4"
TARGETED_PART, HEAD = "language_model", "head"
"""The part that learns through the adapter, and the one that rests unless it is asked for."""
LARGEST_RANK = 65_536
_MATRICES = "the adapter's matrices would be others"
_LayerName = Annotated[str, Field(min_length=1)]
_Targets = Literal["auto"] | Annotated[list[_LayerName], Field(min_length=1)]


class AdapterSettings(RecipeModel):
    """LoRA on the language model: y = W x + alpha / rank * B (A dropout(x)), with W frozen."""

    rank: Annotated[int, Field(ge=1, le=LARGEST_RANK), fixed(_MATRICES)] = 64
    """Rows of A and columns of B."""
    alpha: Annotated[Positive | None, fixed("what the adapter has learned would count differently")] = None
    """How much of B A counts; null for twice the rank."""
    dropout: Annotated[BelowOne, FROM_HERE] = 0.05
    """Share of x that A does not see in a step."""
    targets: Annotated[
        _Targets, Expected("auto or a list of layers' names, such as [q_proj, v_proj]"), fixed(_MATRICES)
    ] = "auto"
    """`auto` for every linear layer inside the decoder's blocks, or a list of such layers' names (`q_proj`)."""
    quantize: Annotated[Literal["none", "nf4"], fixed("the base that the adapter learns beside would be another")] = (
        "none"
    )
    """`nf4` holds those layers' W in four bits while the adapter learns (QLoRA, the `qlora` extra)."""
    learning_rate: Annotated[Positive | None, FROM_HERE] = None
    """Of A and B; null for the stage's, which the fully trained parts have in any case."""

    @property
    def scale(self) -> float:
        """What alpha is, given or not."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


Kind = Literal["ddp", "fsdp2", "zero2", "zero3"]
KINDS = get_args(Kind)
DDP, FSDP2, ZERO2, ZERO3 = KINDS
DEEPSPEED_STAGES = {ZERO2: 2, ZERO3: 3}
_SHARES = "checkpoints hold weights and optimizer in other shares"


class Engine(RecipeModel):
    """A stage's `engine:` group."""

    kind: Annotated[Kind, fixed(_SHARES)] = "ddp"
    """How the stage is laid out over devices."""
    offload: Annotated[bool, fixed(_SHARES)] = False
    """Keep in the processor's memory what the step does not need at once: weights, gradients and optimizer under fsdp2
    and zero3, the optimizer under zero2."""
    reshard_after_forward: Annotated[bool, FREE] = True
    """fsdp2: give a layer's weights back after its forward pass and fetch them again for backward. False keeps them,
    for less traffic and more memory."""

    def problems(self) -> Iterator[Problem]:
        if self.offload and self.kind == DDP:
            yield Problem(
                ("offload",), f"found true, which {DDP} cannot: choose {FSDP2}, {ZERO2} or {ZERO3}", (("kind",),)
            )
        if not self.reshard_after_forward and self.kind != FSDP2:
            said = f"found false, which only {FSDP2} knows, but kind is {self.kind}"
            yield Problem(("reshard_after_forward",), said, (("kind",),))

    @property
    def is_deepspeed(self) -> bool:
        """Whether DeepSpeed is needed."""
        return self.kind in DEEPSPEED_STAGES


Dtype = Literal["bfloat16", "float32"]
DTYPES = get_args(Dtype)


class FeatureCache(RecipeModel):
    """A stage's `feature_cache:` group."""

    folder: Annotated[str, Field(min_length=1), FREE]
    """Where files are kept, by this run and others."""
    max_gb: Annotated[Positive, FREE]
    """How many 1e9 bytes all files in it may have; what does not fit is computed each time."""
    dtype: Annotated[Dtype, fixed("features would be rounded otherwise than before")] = "bfloat16"
    """`bfloat16` (1.68 MB a picture at the published size) or `float32`."""


SOURCE_KEYS = ("json", "jsonl", "csv", "parquet", "shards", "world", "packed")
DATA_KEYS = (
    "json, jsonl, csv, parquet, shards (files of conversations), world (a level 0..3) and packed (a pack of the world)"
)
GOES_WITH = {
    "images": ("json", "jsonl", "csv", "parquet"),
    "count": ("world", "packed"),
    "seed": ("world",),
    "split": ("world",),
    "unknown": ("world",),
    "text": ("world", "packed"),
    "most_turns": ("world", "packed"),
}
"""Keys that say something of some sources alone."""
MOST_PASSES = 1_000_000
"""Over a source, in an epoch: an epoch's order is kept in memory."""
_ORDER = fixed("steps would learn from other samples")
_Name = Annotated[str, Field(min_length=1)]


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # it hides BaseModel.json, which is no longer for use

    class DataSource(RecipeModel):
        """One source of samples: exactly one of :data:`SOURCE_KEYS`, and how."""

        json: Annotated[_Name | None, _ORDER] = None  # type: ignore[assignment]
        """A JSON file: LLaVA's list, COCO's captions, VQAv2's questions."""
        jsonl: Annotated[_Name | None, _ORDER] = None
        """Samples, one a line."""
        csv: Annotated[_Name | None, _ORDER] = None
        """A table with a header, such as image, question, answer."""
        parquet: Annotated[_Name | None, _ORDER] = None
        """A file, a folder, or a pattern such as `part-*.parquet`; pictures in it or in `images`."""
        shards: Annotated[_Name | None, _ORDER] = None
        """WebDataset's tar files: a file, a folder, or a pattern such as `cc-{00000..00055}.tar`."""
        images: Annotated[_Name | None, _ORDER] = None
        """The folder its picture paths start from; without it, the folder of the file."""
        weight: Annotated[float, Field(gt=0, le=MOST_PASSES), _ORDER] = 1.0
        """How often an epoch takes each sample: 2 for twice, 0.5 for every other one, the others next time."""
        world: Annotated[int | None, Field(ge=0, le=3), _ORDER] = None
        """Level of the drawn world."""
        packed: Annotated[_Name | None, _ORDER] = None
        """The folder of a pack that `flashsloth world --format pack` drew."""
        count: Annotated[Count | None, _ORDER] = None
        """Samples to draw from the world; of a pack the first so many, all without it."""
        seed: Annotated[Seed, _ORDER] = 0
        """The world's."""
        split: Annotated[Literal["train", "test"], _ORDER] = "train"
        """Of the world: `train` or `test`."""
        unknown: Annotated[Share, _ORDER] = 0.0
        """Share of the world's pictures that hold nothing with a name, and of the questions about the others that
        suppose what is not there."""
        text: Annotated[Literal["questions", "caption"], _ORDER] = "questions"
        """What the world, drawn or packed, is asked for."""
        most_turns: Annotated[Count | None, _ORDER] = None
        """Questions a picture at most; null for all that the world asks."""
        leave_out: Annotated[list[Annotated[int, Field(ge=0)]], FROM_HERE] = Field(default_factory=list)
        """Numbers of samples, from 0, that are not learned from; the next one stands in for each, so that no other
        moves. Guards name samples by these numbers."""
        resolution: Annotated[Literal["standard", "hd"] | None, _ORDER] = None
        """Of an HD model, how much it is shown of each picture: the whole view, or all views; null for all. Two sources
        of the same files, one of each, teach it both."""
        independent: Annotated[bool, _ORDER] = False
        """Every question by itself instead of as turns of one conversation."""

        @property
        def kind(self) -> str | None:
            """Which of :data:`SOURCE_KEYS` it is; None while a recipe is checked that says none."""
            return next((key for key in SOURCE_KEYS if getattr(self, key) is not None), None)

        @property
        def is_drawn(self) -> bool:
            """Whether it is the drawn world, of whose pictures everything is known."""
            return self.kind in ("world", "packed")

        def problems(self) -> Iterator[Problem]:
            named = [key for key in SOURCE_KEYS if getattr(self, key) is not None]
            if len(named) != 1:
                yield Problem((), f"found {' and '.join(named) or 'no data'}, expected exactly one of {DATA_KEYS}")
                return
            source = named[0]
            for key, sources in GOES_WITH.items():
                value = getattr(self, key)
                if source not in sources and value != type(self).model_fields[key].default:
                    yield Problem(
                        (key,), f"found {found(value)}, but it does not go with {source}: leave it out", ((source,),)
                    )
            if source == "world" and self.count is None:
                yield Problem(("count",), "missing, expected how many pictures to draw", (("world",),))
