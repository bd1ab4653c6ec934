"""A recipe: one YAML file that says what to train on what, and only where that differs from the stage's row.

In: a YAML file and `key=value` overrides (`stages.0.steps=100`). Out: a checked :class:`Recipe`. Every mistake is a
:class:`RecipeError` that names the key, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from flashsloth.training.adapter_settings import HEAD, AdapterSettings, stage_problem
from flashsloth.training.data_source import DATA_KEYS, DataSource
from flashsloth.training.engine_settings import DDP, Engine
from flashsloth.training.feature_cache import FeatureCache
from flashsloth.training.overrides import override
from flashsloth.training.recipe_fields import RecipeError, at_least, check_keys, filled, replaced, typed
from flashsloth.training.stages import PARTS, STAGES, Optimizer, Schedule, Stage, Template
from flashsloth.yaml_file import read_yaml

PRECISIONS = ("auto", "bf16", "float32")
EXPORT_DTYPES = (None, "float32", "bfloat16", "float16")
REPORTERS = ("tensorboard", "wandb")
AUTO = "auto"
GROUPS = {"adapter", "engine", "feature_cache"}
"""Keys of a stage that have keys of their own."""
COUNTS = ("steps", "micro_batch_size", "eval_every", "save_every", "save_total_limit", "log_every")
"""A stage's keys that count something, from 1."""
PACKING_ATTENTION = ("sdpa", "eager")
"""Implementations that take the mask which keeps packed samples apart."""


@dataclass
class ModelSource:
    """Where the model comes from: `path` of a checkpoint, or `config` (and `tokenizer`) to start from nothing.

    Attributes:
        path: a checkpoint's folder or name, ours or published.
        config: fields of FlashSlothConfig; placeholder ids and vocabulary size are the tokenizer's.
        tokenizer: `world` for the drawn world's own, or a name or path.
        system_prompt: what opens every conversation.
        image_aspect_ratio: `square` or `pad`, see the image processor.
    """

    path: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    system_prompt: str = ""
    image_aspect_ratio: str = "square"


@dataclass
class StageRun:
    """One stage as it will run: the table's row with the recipe's changes.

    Attributes:
        stage: the row's name.
        settings: the row, with overrides applied.
        data: training data, in order where `shuffle` is false (a curriculum).
        eval_data: held-out data; empty for none.
        steps: optimizer steps; None for `settings.epochs` passes.
        micro_batch_size: samples a device holds at a time; None for the whole batch.
        eval_every: steps between evaluations.
        save_every: steps between checkpoints.
        save_total_limit: checkpoints that are kept while a stage runs; None for all.
        log_every: steps between lines of the log.
        precision: `auto`, `bf16` or `float32`.
        attention: transformers' name of the attention implementation.
        workers: processes that prepare data.
        shuffle: whether samples are drawn in random order.
        group_by_modality_length: steps of samples with pictures or without, of like lengths (see `data/batches.py`).
        packing: several samples in one row of at most `max_length` tokens, each as if it were alone.
        max_bad_fraction: share of the data that may be bad and is left out; more stops the run.
        activation_checkpointing: run layers again in backward instead of keeping what they made: less memory, a third
            more work; `auto` for where the stage would not fit otherwise (see `memory.py`).
        adapter: LoRA for the language model, the other parts of `trains` learning fully; None for everything fully.
        engine: how the stage is laid out over devices.
        feature_cache: where a frozen encoder's features are kept, so that they are computed once; None for nowhere.
        augment: vary pictures on the device, so that none is seen twice alike (see `encoder_options.py`).
        compile_encoder: compile the encoder's passes: minutes to begin with, and faster ones from then on.
    """

    stage: str
    settings: Stage
    data: list[DataSource]
    eval_data: list[DataSource] = field(default_factory=list)
    steps: int | None = None
    micro_batch_size: int | None = None
    eval_every: int = 500
    save_every: int = 500
    save_total_limit: int | None = 2
    log_every: int = 10
    precision: str = "auto"
    attention: str = "sdpa"
    workers: int = 1
    shuffle: bool = True
    group_by_modality_length: bool = False
    packing: bool = False
    max_bad_fraction: float = 0.005
    max_grad_norm: float = 1.0
    activation_checkpointing: bool | str = AUTO
    adapter: AdapterSettings | None = None
    engine: Engine = field(default_factory=Engine)
    feature_cache: FeatureCache | None = None
    augment: bool = False
    compile_encoder: bool = False


@dataclass
class Recipe:
    """A model and the stages it goes through, one after the other.

    Attributes:
        name: of the run.
        output: its folder.
        model: where it starts.
        stages: in order.
        seed: of everything that is drawn.
        export_dtype: precision of the copy in `final/`; None for no copy.
        report_to: where the log goes beside the run's folder: some of :data:`REPORTERS`.
        matrix_rate: operations a second that one device can do, for model FLOPs utilisation; None to measure it.
    """

    name: str
    output: Path
    model: ModelSource
    stages: list[StageRun]
    seed: int = 0
    export_dtype: str | None = None
    report_to: list[str] = field(default_factory=list)
    matrix_rate: float | None = None


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value`, values as YAML; list items by number.

    Raises:
        RecipeError: for anything that is not right in it.
    """
    file = Path(path)
    tree = read_yaml(file, "recipe", "those in recipes/", RecipeError)
    if not isinstance(tree, dict):
        raise RecipeError(f"{file} holds a {type(tree).__name__}, expected keys such as name, model, stages")
    for change in overrides or []:
        override(tree, change)
    return _recipe(tree, file.stem)


def _recipe(tree: dict[str, Any], default_name: str) -> Recipe:
    name = str(tree.get("name", default_name))
    raw_stages = tree.pop("stages", None)
    if not isinstance(raw_stages, list) or not raw_stages:
        raise RecipeError("stages is missing or empty: expected a list, each item with stage: and data:")
    model = filled(ModelSource, tree.pop("model", None), "model")
    if (model.path is None) == (model.config is None):
        raise RecipeError("model needs exactly one of path (a checkpoint) and config (to start from nothing)")
    if model.config is not None and model.tokenizer is None:
        raise RecipeError("model.config needs model.tokenizer: 'world', or a tokenizer's name or path")
    check_keys(tree, {"name", "output", "seed", "export_dtype", "report_to", "matrix_rate"}, "the recipe")
    if tree.get("export_dtype") not in EXPORT_DTYPES:
        raise RecipeError(f"export_dtype is {tree['export_dtype']!r}, expected one of {EXPORT_DTYPES[1:]}, or none")
    stages = [_stage_run(raw, f"stages.{index}") for index, raw in enumerate(raw_stages)]
    _check_bases(model, stages)
    return Recipe(
        name=name,
        output=Path(str(tree.get("output", f"runs/{name}"))),
        model=model,
        stages=stages,
        seed=typed(tree.get("seed", 0), "int", "seed"),
        export_dtype=tree.get("export_dtype"),
        report_to=_reporters(tree.get("report_to", [])),
        matrix_rate=at_least(typed(tree.get("matrix_rate"), "float | None", "matrix_rate"), 1, "matrix_rate"),
    )


def _reporters(raw: Any) -> list[str]:
    if not isinstance(raw, list) or not set(map(str, raw)) <= set(REPORTERS):
        raise RecipeError(f"report_to is {raw!r}, expected a list of some of {REPORTERS}")
    return raw


def _stage_run(raw: Any, where: str) -> StageRun:
    if not isinstance(raw, dict) or raw.get("stage") not in STAGES:
        found = raw.get("stage") if isinstance(raw, dict) else raw
        raise RecipeError(f"{where}.stage is {found!r}, expected one of {sorted(STAGES)}")
    row_names = {f.name for f in dataclasses.fields(Stage)} - {"objective"}
    run_names = {f.name for f in dataclasses.fields(StageRun)} - {"settings"}
    check_keys(raw, row_names | run_names, where)
    changes = {key: value for key, value in raw.items() if key in row_names}
    if "trains" in changes:
        changes["trains"] = tuple(changes["trains"])
        unknown = sorted(set(changes["trains"]) - set(PARTS))
        if unknown:
            raise RecipeError(f"{where}.trains names {unknown}, expected some of {sorted(PARTS)}")
    named = {"template": get_args(Template), "schedule": get_args(Schedule), "optimizer": get_args(Optimizer)}
    for key, choices in named.items():
        if key in changes and changes[key] not in choices:
            raise RecipeError(f"{where}.{key} is {changes[key]!r}, expected one of {sorted(choices)}")
    settings = replaced(STAGES[raw["stage"]], changes, where)
    adapter = _adapter(raw.get("adapter"), settings, f"{where}.adapter")
    if adapter is not None and "trains" not in raw:
        settings = dataclasses.replace(settings, trains=tuple(part for part in settings.trains if part != HEAD))
    rest = {key: value for key, value in raw.items() if key in run_names - {"stage", "data", "eval_data"} - GROUPS}
    run = StageRun(stage=raw["stage"], settings=settings, data=[], adapter=adapter)
    run = replaced(run, rest, where)
    run.engine = _engine(raw.get("engine"), settings, f"{where}.engine")
    if adapter is not None and run.engine.kind != DDP:
        raise RecipeError(f"{where}.engine.kind is {run.engine.kind}, but a stage with an adapter needs {DDP}")
    run.feature_cache = _feature_cache(raw.get("feature_cache"), settings, run.engine, f"{where}.feature_cache")
    if run.augment and run.feature_cache is not None:
        raise RecipeError(
            f"{where}.augment varies pictures, whose features then cannot be kept: leave feature_cache out"
        )
    if run.activation_checkpointing not in (True, False, AUTO):
        raise RecipeError(
            f"{where}.activation_checkpointing is {run.activation_checkpointing!r}, expected true, false or {AUTO}"
        )
    for key in COUNTS:
        at_least(getattr(run, key), 1, f"{where}.{key}")
    run.data = _sources(raw.get("data"), f"{where}.data")
    run.eval_data = _sources(raw["eval_data"], f"{where}.eval_data") if raw.get("eval_data") else []
    if not run.data:
        raise RecipeError(f"{where}.data is empty: expected a list of sources, {DATA_KEYS}")
    _check_data_order(run, where)
    if run.precision not in PRECISIONS:
        raise RecipeError(f"{where}.precision is {run.precision!r}, expected one of {PRECISIONS}")
    return run


def _adapter(raw: Any, settings: Stage, where: str) -> AdapterSettings | None:
    """A stage's adapter, if it has one and can have one."""
    if raw is None:
        return None
    adapter = filled(AdapterSettings, raw, where)
    if problem := stage_problem(settings):
        raise RecipeError(f"{where} {problem}")
    if problem := adapter.problem():
        raise RecipeError(f"{where}.{problem}")
    return adapter


def _engine(raw: Any, settings: Stage, where: str) -> Engine:
    """How a stage is laid out over devices."""
    if raw is None:
        return Engine()
    engine = filled(Engine, raw, where)
    if problem := engine.problem(settings.optimizer):
        raise RecipeError(f"{where}.{problem}")
    if not settings.learns_answers and engine.kind != DDP:
        raise RecipeError(f"{where}.kind is {engine.kind}, but a stage that learns {settings.objective} needs {DDP}")
    return engine


def _feature_cache(raw: Any, settings: Stage, engine: Engine, where: str) -> FeatureCache | None:
    """Where a stage's features are kept, if it keeps any."""
    if raw is None:
        return None
    cache = filled(FeatureCache, raw, where)
    if problem := cache.problem(settings.trains, engine.kind):
        raise RecipeError(f"{where}.{problem}")
    return cache


def _check_bases(model: ModelSource, stages: list[StageRun]) -> None:
    """An adapter is kept without its base, so the base has to be somewhere on disk."""
    for index, stage in enumerate(stages):
        if stage.adapter is None:
            continue
        if index == 0 and model.path is None:
            raise RecipeError(
                "stages.0.adapter needs a model.path: what is made from nothing is nowhere to be found again"
            )
        if index > 0 and stages[index - 1].adapter is not None:
            raise RecipeError(
                f"stages.{index}.adapter follows another adapter: merge that one with `flashsloth merge`, and start a "
                f"recipe from the result"
            )


def _sources(raw: Any, where: str) -> list[DataSource]:
    sources = []
    for index, item in enumerate(raw if isinstance(raw, list) else [raw] if raw else []):
        source = filled(DataSource, item, f"{where}.{index}")
        if problem := source.problem():
            raise RecipeError(f"{where}.{index}{problem}")
        sources.append(source)
    return sources


def _check_data_order(run: StageRun, where: str) -> None:
    """Options of a stage's data that contradict each other."""
    if run.group_by_modality_length and not run.shuffle:
        raise RecipeError(f"{where}.group_by_modality_length draws samples in an order of its own: needs shuffle: true")
    if run.packing and run.attention not in PACKING_ATTENTION:
        raise RecipeError(f"{where}.packing with attention {run.attention!r}: expected one of {PACKING_ATTENTION}")
    if run.packing and not run.settings.learns_answers:
        raise RecipeError(f"{where}.packing is for stages that learn answers, not for {run.stage!r}: leave it out")
    if not 0 <= run.max_bad_fraction <= 1:
        raise RecipeError(f"{where}.max_bad_fraction is {run.max_bad_fraction:g}, expected a share, 0 to 1")


__all__ = ["DataSource", "ModelSource", "Recipe", "RecipeError", "StageRun", "load_recipe"]
