"""One stage as a recipe has it: a row of the table in `stages.py` with the recipe's changes, its data, how it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from flashsloth.strict_model import Problem
from flashsloth.training.adapter_settings import HEAD, TARGETED_PART, AdapterSettings
from flashsloth.training.data_source import DataSource
from flashsloth.training.engine_settings import DDP, ZERO3, Engine
from flashsloth.training.feature_cache import FeatureCache
from flashsloth.training.recipe_fields import (
    FREE,
    FROM_HERE,
    Count,
    NotNegative,
    Positive,
    RecipeError,
    RecipeModel,
    Samples,
    Share,
    fixed,
)
from flashsloth.training.stages import STAGES, Stage

AUTO = "auto"
PACKING_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask which keeps packed samples apart."""
MOST_WORKERS = 1024
ENCODER_PART = "vision_encoder"
ROW = "settings"
"""The group that the row's keys are put into; no key of a file."""
ROW_KEYS = [name for name in Stage.model_fields if name != "objective"]
"""Keys of a stage that change its row."""
_ORDER = "steps would learn from other samples"
_FEATURES = "features would be rounded otherwise than before"
_Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]


class StageRun(RecipeModel):
    """One stage as it will run."""

    stage: Annotated[Literal["encoder", "alignment", "instruction", "instruction_hd"], fixed("it is another stage")]
    """The row's name."""
    settings: Annotated[Stage, fixed("it is another stage")]
    """The row, with the recipe's changes, which stand beside the stage's other keys."""
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
        return [*(name for name in cls.model_fields if name != "settings"), *ROW_KEYS]

    def problems(self) -> Iterator[Problem]:
        yield from self._data_problems()
        yield from self._evaluation_problems()
        yield from self._adapter_problems()
        yield from self._engine_problems()
        rows, batch = self.micro_batch_size, self.settings.batch_size
        if rows is not None and batch % rows:
            said = f"found {rows}, which does not divide batch_size, {batch}: a step is whole micro-batches"
            yield Problem(("micro_batch_size",), said, (("settings", "batch_size"),))

    def _data_problems(self) -> Iterator[Problem]:
        if self.group_by_modality_length and not self.shuffle:
            said = "draws samples in an order of its own: needs shuffle: true"
            yield Problem(("group_by_modality_length",), said, (("shuffle",),))
        if self.packing and self.attention not in PACKING_ATTENTION:
            said = f"found {self.attention}, but packing needs {' or '.join(PACKING_ATTENTION)}"
            yield Problem(("attention",), said, (("packing",),))
        if self.packing and not self.settings.learns_answers:
            yield Problem(("packing",), f"is for stages that learn answers, not for {self.stage}: leave it out")
        yield from self._source_problems("data", self.data)
        yield from self._source_problems("eval_data", self.eval_data)

    def _source_problems(self, key: str, sources: list[DataSource]) -> Iterator[Problem]:
        settings = self.settings
        template, loss = ("settings", "template"), ("settings", "patch_loss")
        learns_patches = not settings.learns_answers or (key == "data" and settings.patch_loss > 0)
        for number, source in enumerate(sources):
            if learns_patches and source.kind is not None and not source.is_drawn:
                who = "patch_loss" if settings.learns_answers else f"stage {self.stage}"
                said = f"found {source.kind}, but {who} learns from drawn pictures: needs world or packed"
                yield Problem((key, number), said, (loss,))
            if source.leave_out and not settings.learns_answers:
                said = f"is for stages that learn answers, not for {self.stage}"
                yield Problem((key, number, "leave_out"), said)
            if source.resolution is not None and not settings.learns_answers:
                said = f"is for stages that learn answers, not for {self.stage}"
                yield Problem((key, number, "resolution"), said)
            if source.resolution is not None and (self.feature_cache is not None or settings.patch_loss):
                said = "goes neither with feature_cache nor with patch_loss, which are of all views: leave it out"
                yield Problem((key, number, "resolution"), said, (loss,))
            if source.independent and settings.learns_answers and settings.template == "plain":
                said = "needs questions to tell apart, which template plain leaves out: choose chat"
                yield Problem((key, number, "independent"), said, (template,))

    def _evaluation_problems(self) -> Iterator[Problem]:
        if self.best_by is not None and not self.eval_data:
            yield Problem(("best_by",), "needs eval_data: the best is found by evaluating", (("eval_data",),))
        if self.best_by == "right" and not self.settings.learns_answers:
            yield Problem(("best_by",), f"found right, but stage {self.stage} answers nothing: choose loss")
        for key, asked in (("leave", self.leave == "best"), ("patience", self.patience is not None)):
            if asked and self.best_by is None:
                yield Problem((key,), "needs best_by: loss, or right, to say what is better", (("best_by",),))

    def _adapter_problems(self) -> Iterator[Problem]:
        trains, loss = ("settings", "trains"), ("settings", "patch_loss")
        if self.adapter is None:
            return
        if TARGETED_PART not in self.settings.trains:
            said = f"is for a stage that trains {TARGETED_PART}, and this one trains {', '.join(self.settings.trains)}"
            yield Problem(("adapter",), said, (trains,))
        if self.settings.patch_loss:
            said = f"does not go with patch_loss ({self.settings.patch_loss:g}): leave one of them out"
            yield Problem(("adapter",), said, (loss,))
        if self.engine.kind != DDP:
            said = f"found {self.engine.kind}, but a stage with an adapter needs {DDP}"
            yield Problem(("engine", "kind"), said, (("adapter",),))

    def _engine_problems(self) -> Iterator[Problem]:
        kind, settings, cache = self.engine.kind, self.settings, self.feature_cache
        if settings.optimizer == "muon" and kind != DDP:
            said = f"found {kind}, but muon needs whole matrices on every device: choose {DDP}, or adamw"
            yield Problem(("engine", "kind"), said, (("settings", "optimizer"),))
        if not settings.learns_answers and kind != DDP:
            yield Problem(("engine", "kind"), f"found {kind}, but a stage that learns {settings.objective} needs {DDP}")
        if cache is not None and ENCODER_PART in settings.trains:
            said = "features of an encoder that learns cannot be kept: leave it out"
            yield Problem(("feature_cache",), said, (("settings", "trains"),))
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
        batch = self.settings.batch_size
        rows = self.micro_batch_size or max(1, batch // devices)
        if batch % (rows * devices):
            raise RecipeError(
                f"stage {self.stage}: batch_size {batch} is not a multiple of micro_batch_size {rows} times {devices} "
                f"devices: change one of them"
            )
        return rows


def arranged_stage(raw: Any) -> Any:
    """A stage's keys as :class:`StageRun` has them: the row's keys in a group of their own, filled from the table."""
    if not isinstance(raw, dict):
        return raw
    name = raw.get("stage")
    row = STAGES[name] if isinstance(name, str) and name in STAGES else STAGES["alignment"]
    settings = row.model_dump()
    if raw.get("adapter") is not None:
        settings["trains"] = [part for part in settings["trains"] if part != HEAD]
    stage = {key: value for key, value in raw.items() if key not in (*ROW_KEYS, ROW)}
    stage[ROW] = {**settings, **{key: value for key, value in raw.items() if key in (*ROW_KEYS, ROW)}}
    for key in ("data", "eval_data"):
        if isinstance(stage.get(key), dict):
            stage[key] = [stage[key]]  # a source by itself
    return {key: value for key, value in stage.items() if value is not None or key not in ("eval_data", "engine")}


__all__ = ["AUTO", "ROW", "StageRun", "arranged_stage"]
