"""The stages of training, as a table, and one stage as a recipe has it: a row, its data, and how it runs.

In: a stage's keys. Out: a :class:`StageRun`. A recipe names a row and overrides what differs. The rows `alignment`,
`instruction` and `instruction_hd` are the paper's (FlashSloth, section 4.1; flashsloth's `scripts/` in the published
code); `encoder` teaches an encoder from scratch on drawn pictures, patch by patch, where no pretrained one can be had.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from flashsloth.training.recipe_fields import (
    DDP,
    FREE,
    FROM_HERE,
    HEAD,
    MOST,
    TARGETED_PART,
    ZERO3,
    AdapterSettings,
    BelowOne,
    Count,
    DataSource,
    Engine,
    FeatureCache,
    NotNegative,
    Positive,
    RecipeError,
    RecipeModel,
    Samples,
    Share,
    fixed,
)
from flashsloth.yaml_file import Problem, found

Part = Literal["vision_encoder", "sap", "projector", "query_tokens", "embq", "language_model", "head"]
Template = Literal["plain", "chat", "published_chat"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "warmup_stable_decay"]

PARTS: dict[str, str] = {
    "vision_encoder": "model.vision_tower",
    "sap": "model.spatial_attention_pooling",
    "projector": "model.projector",
    "query_tokens": "model.query_tokens",
    "embq": "model.embedded_query",
    "language_model": "model.language_model",
    "head": "lm_head",
}
"""What a stage can train, by the module that holds it."""
DECAY_SHARE = 0.1
"""Of the steps, at the end, in which the schedule `warmup_stable_decay` falls to zero."""
PATCH_STAGE = "encoder"
"""The row whose stage learns what each patch of a drawn picture shows; the others learn answers."""
PATCH_LEARNERS: tuple[Part, ...] = ("vision_encoder",)
QUERY_PARTS = ("query_tokens", "embq")
"""Parts that work for a question's query tokens, which text without questions has none of."""


class Stage(RecipeModel):
    """One row of the table; a recipe may change all of it."""

    trains: Annotated[
        tuple[Part, ...], Field(min_length=1, strict=False), fixed("the optimizer holds averages of other parameters")
    ]
    """Parts that learn; everything else is frozen."""
    template: Annotated[Template, fixed("the text of every sample would be another")]
    """`chat`, `plain` (stage 1: picture and caption only), or `published_chat` (a space before the query tokens, as the
    published training text has)."""
    learning_rate: Annotated[Positive, FROM_HERE]
    """The highest, for AdamW."""
    batch_size: Annotated[Samples, fixed("steps would learn from other samples")]
    """Samples an optimizer step, over all devices and accumulation."""
    epochs: Annotated[float, Field(gt=0, le=MOST), FROM_HERE] = 1.0
    """Passes over the data, where the recipe gives no `steps`."""
    warmup: Annotated[BelowOne, FROM_HERE] = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Annotated[Schedule, FROM_HERE] = "cosine"
    """transformers' name of the learning-rate schedule; `warmup_stable_decay` falls in the last tenth of the steps."""
    weight_decay: Annotated[NotNegative, FROM_HERE] = 0.0
    """AdamW's."""
    adam_beta2: Annotated[BelowOne, FROM_HERE] = 0.999
    """AdamW's."""
    optimizer: Annotated[Optimizer, fixed("its averages would be another optimizer's")] = "adamw"
    """`adamw`, or `muon` for the matrices of transformer blocks."""
    max_length: Annotated[Count, fixed("other samples would be too long")] = 3072
    """Tokens; a longer sample is a bad one."""
    patch_loss: Annotated[NotNegative, fixed("another loss would be learned from")] = 0.0
    """Weight of the patches' loss beside the answers', for drawn pictures; 0 for none."""

    def problems(self) -> Iterator[Problem]:
        if len(set(self.trains)) < len(self.trains):
            yield Problem(("trains",), f"found {found(self.trains)}, which names a part twice")
        if self.weight_decay * self.learning_rate >= 1:
            said = f"found {self.weight_decay:g}, which times learning_rate, {self.learning_rate:g}, is 1 or more: a "
            yield Problem(("weight_decay",), f"{said}step would leave nothing of the weights", (("learning_rate",),))


_INSTRUCTED: tuple[Part, ...] = ("projector", "sap", "query_tokens", "embq", "language_model", "head")
_INSTRUCTION: dict[str, Any] = {
    "template": "published_chat",
    "learning_rate": 2e-5,
    "batch_size": 128,
}

STAGES: dict[str, Stage] = {
    "encoder": Stage(trains=("vision_encoder",), template="plain", learning_rate=1e-3, batch_size=64),
    "alignment": Stage(trains=("projector", "sap"), template="plain", learning_rate=1e-3, batch_size=256),
    "instruction": Stage(trains=_INSTRUCTED, **_INSTRUCTION),
    "instruction_hd": Stage(trains=(*_INSTRUCTED, "vision_encoder"), **_INSTRUCTION),
}


def freeze_all_but(model: nn.Module, trains: tuple[str, ...]) -> int:
    """Let the named parts learn and freeze the rest.

    Returns:
        How many parameters learn.

    Raises:
        ValueError: for a name that is not in :data:`PARTS`.
    """
    unknown = sorted(set(trains) - set(PARTS))
    if unknown:
        raise ValueError(f"trains names {unknown}, expected some of {sorted(PARTS)}")
    model.requires_grad_(False)
    for name in trains:
        model.get_submodule(PARTS[name]).requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


AUTO = "auto"
PACKING_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask which keeps packed samples apart."""
MOST_WORKERS = 1024
ENCODER_PART = "vision_encoder"
_ORDER = "steps would learn from other samples"
_FEATURES = "features would be rounded otherwise than before"
_Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]


class StageRun(Stage):
    """One stage as it will run: its row, with the recipe's changes, and more."""

    stage: Annotated[Literal["encoder", "alignment", "instruction", "instruction_hd"], fixed("it is another stage")]
    """The row's name."""
    data: Annotated[list[DataSource], Field(min_length=1), fixed(_ORDER)]
    """Training data, in order where `shuffle` is false (a curriculum)."""
    eval_data: Annotated[list[DataSource], fixed("scores would not be of the same questions")] = Field(
        default_factory=list
    )
    """Held-out data; empty for none."""
    steps: Annotated[Count | None, FROM_HERE] = None
    """Optimizer steps; null for `epochs` passes."""
    micro_batch_size: Annotated[Samples | None, FROM_HERE] = None
    """Samples a device holds at a time; null for its whole share of the batch."""
    eval_every: Annotated[Count, FREE] = 500
    """Steps between evaluations."""
    best_by: Annotated[Literal["loss", "right"] | None, fixed("evaluations before were not judged by it")] = None
    """What makes an evaluation the best so far, whose checkpoint is then kept: the least `loss`, or the largest share
    of `right` answers; null to keep none for that."""
    leave: Annotated[Literal["last", "best"], FREE] = "last"
    """Which step's model the stage leaves."""
    patience: Annotated[Count | None, FREE] = None
    """Evaluations without a gain after which the stage ends; null to go on to the last step."""
    least_gain: Annotated[NotNegative, FROM_HERE] = 0.0
    """By how much an evaluation has to be better to count as a gain."""
    save_every: Annotated[Count, FREE] = 500
    """Steps between checkpoints."""
    save_total_limit: Annotated[Count | None, FREE] = 2
    """Checkpoints that are kept while a stage runs; null for all."""
    log_every: Annotated[Count, FREE] = 10
    """Steps between lines of the log."""
    precision: Annotated[Literal["auto", "bf16", "float32"], FROM_HERE] = "auto"
    """What is computed in; `auto` for bf16 on accelerators and float32 elsewhere. Weights are float32 in any case."""
    attention: Annotated[_Attention, FROM_HERE] = "sdpa"
    """transformers' name of the attention implementation."""
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS), FREE] = 1
    """Processes that prepare data."""
    worker_timeout: Annotated[Positive, FREE] = 1200.0
    """Seconds after which a batch that no worker delivers ends the run, with a checkpoint."""
    shuffle: Annotated[bool, fixed(_ORDER)] = True
    """Whether samples are drawn in random order."""
    group_by_modality_length: Annotated[bool, fixed(_ORDER)] = False
    """Steps of samples with pictures or without, of like lengths."""
    packing: Annotated[bool, FROM_HERE] = False
    """Several samples in one row of at most `max_length` tokens, each as if it were alone."""
    max_bad_fraction: Annotated[Share, FROM_HERE] = 0.005
    """Share of the data that may be bad and is left out; more stops the run."""
    max_grad_norm: Annotated[NotNegative, FROM_HERE] = 1.0
    """Longer gradients are shortened to it; 0 for never."""
    activation_checkpointing: Annotated[bool | Literal["auto"], FROM_HERE] = "auto"
    """Run layers again in backward instead of keeping what they made: less memory, a third more work; `auto` for where
    the stage would not fit otherwise."""
    adapter: Annotated[AdapterSettings | None, fixed("other parameters would learn")] = None
    """LoRA for the language model, the other parts of `trains` learning fully; null for everything fully."""
    engine: Annotated[Engine, fixed("checkpoints hold weights and optimizer in other shares")] = Engine()
    """How the stage is laid out over devices."""
    feature_cache: Annotated[FeatureCache | None, fixed(_FEATURES)] = None
    """Where a frozen encoder's features are kept, so that they are computed once; null for nowhere."""
    augment: Annotated[bool, fixed("pictures would be varied otherwise than before")] = False
    """Vary pictures on the device, so that none is seen twice alike."""
    compile_encoder: Annotated[bool, FROM_HERE] = False
    """Compile the encoder's passes: minutes to begin with, and faster ones from then on."""

    @classmethod
    def known_keys(cls) -> list[str]:
        return [*(name for name in cls.model_fields if name not in Stage.model_fields), *Stage.model_fields]

    @property
    def learns_answers(self) -> bool:
        """Whether its loss is next-token cross-entropy on the answers, and not what each patch of a picture shows."""
        return self.stage != PATCH_STAGE

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if not self.learns_answers:
            yield from self._patch_problems()
        elif self.template == "plain" and (unused := [part for part in self.trains if part in QUERY_PARTS]):
            said = f"found {' and '.join(unused)}, which template plain has no use for: choose chat, or leave them out"
            yield Problem(("trains",), said, (("template",),))
        yield from self._data_problems()
        yield from self._evaluation_problems()
        yield from self._adapter_problems()
        yield from self._engine_problems()
        rows, batch = self.micro_batch_size, self.batch_size
        if rows is not None and batch % rows:
            said = f"found {rows}, which does not divide batch_size, {batch}: a step is whole micro-batches"
            yield Problem(("micro_batch_size",), said, (("batch_size",),))

    def _patch_problems(self) -> Iterator[Problem]:
        """Of a stage that learns patches."""
        answers_only = f"is for stages that learn answers, not for {self.stage}"
        if self.patch_loss:
            said = "goes beside the loss of answers, and this stage learns patches: leave it out"
            yield Problem(("patch_loss",), said)
        if self.trains != PATCH_LEARNERS:
            said = f"found {', '.join(self.trains)}, but patches teach {PATCH_LEARNERS[0]} alone"
            yield Problem(("trains",), said)
        if self.packing:
            yield Problem(("packing",), f"{answers_only}: leave it out")
        if self.best_by == "right":
            yield Problem(("best_by",), f"found right, but stage {self.stage} answers nothing: choose loss")
        if self.engine.kind != DDP:
            yield Problem(("engine", "kind"), f"found {self.engine.kind}, but a stage that learns patches needs {DDP}")
        for key, sources in (("data", self.data), ("eval_data", self.eval_data)):
            for number, source in enumerate(sources):
                if source.leave_out:
                    yield Problem((key, number, "leave_out"), answers_only)
                if source.resolution is not None:
                    yield Problem((key, number, "resolution"), answers_only)

    def _data_problems(self) -> Iterator[Problem]:
        if self.group_by_modality_length and not self.shuffle:
            said = "draws samples in an order of its own: needs shuffle: true"
            yield Problem(("group_by_modality_length",), said, (("shuffle",),))
        if self.packing and self.attention not in PACKING_ATTENTION:
            said = f"found {self.attention}, but packing needs {' or '.join(PACKING_ATTENTION)}"
            yield Problem(("attention",), said, (("packing",),))
        yield from self._source_problems("data", self.data)
        yield from self._source_problems("eval_data", self.eval_data)

    def _source_problems(self, key: str, sources: list[DataSource]) -> Iterator[Problem]:
        learns_patches = not self.learns_answers or (key == "data" and self.patch_loss > 0)
        for number, source in enumerate(sources):
            if learns_patches and source.kind is not None and not source.is_drawn:
                who = "patch_loss" if self.learns_answers else f"stage {self.stage}"
                said = f"found {source.kind}, but {who} learns from drawn pictures: needs world or packed"
                yield Problem((key, number), said, (("patch_loss",),))
            if source.resolution is not None and (self.feature_cache is not None or self.patch_loss):
                said = "goes neither with feature_cache nor with patch_loss, which are of all views: leave it out"
                yield Problem((key, number, "resolution"), said, (("patch_loss",),))
            if source.independent and self.learns_answers and self.template == "plain":
                said = "needs questions to tell apart, which template plain leaves out: choose chat"
                yield Problem((key, number, "independent"), said, (("template",),))

    def _evaluation_problems(self) -> Iterator[Problem]:
        if self.best_by is not None and not self.eval_data:
            yield Problem(("best_by",), "needs eval_data: the best is found by evaluating", (("eval_data",),))
        for key, asked in (("leave", self.leave == "best"), ("patience", self.patience is not None)):
            if asked and self.best_by is None:
                yield Problem((key,), "needs best_by: loss, or right, to say what is better", (("best_by",),))

    def _adapter_problems(self) -> Iterator[Problem]:
        if self.adapter is None:
            return
        if TARGETED_PART not in self.trains:
            said = f"is for a stage that trains {TARGETED_PART}, and this one trains {', '.join(self.trains)}"
            yield Problem(("adapter",), said, (("trains",),))
        if self.patch_loss:
            said = f"does not go with patch_loss ({self.patch_loss:g}): leave one of them out"
            yield Problem(("adapter",), said, (("patch_loss",),))
        if self.engine.kind != DDP:
            said = f"found {self.engine.kind}, but a stage with an adapter needs {DDP}"
            yield Problem(("engine", "kind"), said, (("adapter",),))

    def _engine_problems(self) -> Iterator[Problem]:
        kind, cache = self.engine.kind, self.feature_cache
        if self.optimizer == "muon" and kind != DDP:
            said = f"found {kind}, but muon needs whole matrices on every device: choose {DDP}, or adamw"
            yield Problem(("engine", "kind"), said, (("optimizer",),))
        if cache is not None and ENCODER_PART in self.trains:
            said = "features of an encoder that learns cannot be kept: leave it out"
            yield Problem(("feature_cache",), said, (("trains",),))
        if cache is not None and kind == ZERO3:
            said = f"found {kind}, but feature_cache needs the encoder whole on each device: choose fsdp2 or zero2"
            yield Problem(("engine", "kind"), said, (("feature_cache",),))
        if cache is not None and self.augment:
            said = "varies pictures, whose features then cannot be kept: leave feature_cache out"
            yield Problem(("augment",), said, (("feature_cache",),))

    def rows(self, devices: int) -> int:
        """Samples that each of some devices holds at a time.

        Raises:
            RecipeError: if the batch does not fall into whole micro-batches.
        """
        batch = self.batch_size
        rows = self.micro_batch_size or max(1, batch // devices)
        if batch % (rows * devices):
            raise RecipeError(
                f"stage {self.stage}: batch_size {batch} is not a multiple of micro_batch_size {rows} times {devices} "
                f"devices: change one of them"
            )
        return rows


def arranged_stage(raw: Any) -> Any:
    """A stage's keys as :class:`StageRun` has them: with those of its row that it does not change."""
    if not isinstance(raw, dict):
        return raw
    name = raw.get("stage")
    row = STAGES[name] if isinstance(name, str) and name in STAGES else STAGES["alignment"]
    stage = {**row.model_dump(), **raw}
    if raw.get("adapter") is not None and "trains" not in raw:
        stage["trains"] = [part for part in row.trains if part != HEAD]
    for key in ("data", "eval_data"):
        if isinstance(stage.get(key), dict):
            stage[key] = [stage[key]]  # a source by itself
    return {key: value for key, value in stage.items() if value is not None or key not in ("eval_data", "engine")}
