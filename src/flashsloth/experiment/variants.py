"""An experiment: one YAML file that says which models are compared, with which seeds, and what they learn.

    name: claim
    output: runs/claim
    seeds: [1, 2, 3]
    model: ...                 # as in a training recipe, from nothing
    encoder: [...]             # stages that make the encoder which all variants share
    stages: [...]              # stages that every variant goes through; eval_data of the last is what is asked
    variants:
      - {name: SAP + EmbQ}
      - {name: average, pooling: average, embq: false}

In: the file. Out: a checked :class:`Experiment`. What stands under `model`, `encoder` and `stages` is checked by the
training recipes that are made of it.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flashsloth.experiment.poolings import NONE, POOLINGS, SAP
from flashsloth.training.recipe import Recipe, load_recipe
from flashsloth.yaml_file import read_yaml

KEYS = {"name", "output", "seeds", "processes", "model", "encoder", "stages", "variants"}
NEEDED = ("model", "encoder", "stages", "variants")
ENCODER_FOLDER = "encoder"
UNPOOLED = 1
"""Side of the windows of a variant that keeps all visual tokens."""


class ExperimentError(ValueError):
    """A mistake in an experiment's file."""


@dataclass(frozen=True)
class Variant:
    """One of the models.

    Attributes:
        name: in the table.
        pooling: one of :data:`~flashsloth.experiment.poolings.POOLINGS`.
        pool_size: side of a window: 3 for 9 times fewer visual tokens, 6 for 36 times.
        embq: whether the query tokens look at the picture.
        num_query_tokens, embq_layer: None for the model's own.
    """

    name: str
    pooling: str = SAP
    pool_size: int = 3
    embq: bool = True
    num_query_tokens: int | None = None
    embq_layer: int | None = None

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def config(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A model's fields with this variant's."""
        changed = copy.deepcopy(fields)
        changed["pool_size"] = self.pool_size
        for name in ("num_query_tokens", "embq_layer"):
            if getattr(self, name) is not None:
                changed[name] = getattr(self, name)
        return changed


@dataclass
class Experiment:
    """All of it.

    Attributes:
        name, output: of the experiment, and its folder.
        seeds: every variant is trained with each of them.
        processes: runs at a time, on one device.
        model: as in a training recipe.
        encoder, stages: as in a training recipe, raw.
        variants: the models.
    """

    name: str
    output: Path
    seeds: list[int]
    processes: int
    model: dict[str, Any]
    encoder: list[dict[str, Any]]
    stages: list[dict[str, Any]]
    variants: list[Variant]

    def encoder_recipe(self) -> Recipe:
        """What makes the shared encoder."""
        folder = self.output / ENCODER_FOLDER
        tree = {"name": "encoder", "output": str(folder), "seed": self.seeds[0], "model": self.model}
        return self._recipe(folder, {**tree, "stages": self.encoder})

    def run_folder(self, variant: Variant, seed: int) -> Path:
        """Where a run leaves what it found."""
        return self.output / f"{variant.folder}-{seed}"

    def recipe(self, variant: Variant, seed: int) -> Recipe:
        """What one variant learns."""
        folder = self.run_folder(variant, seed)
        model = {**self.model, "config": variant.config(self.model["config"])}
        tree = {"name": f"{variant.folder}-{seed}", "output": str(folder), "seed": seed, "model": model}
        return self._recipe(folder, {**tree, "stages": self.stages})

    def _recipe(self, folder: Path, tree: dict[str, Any]) -> Recipe:
        """A training recipe, beside what it makes."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return load_recipe(file)


def load_experiment(path: str | Path) -> Experiment:
    """Read and check an experiment.

    Raises:
        ExperimentError, RecipeError: for anything that is not right in it.
    """
    file = Path(path)
    tree = read_yaml(file, "experiment", "recipes/experiments/claim.yaml", ExperimentError)
    if not isinstance(tree, dict) or set(tree) - KEYS or not set(NEEDED) <= set(tree):
        found = sorted(tree) if isinstance(tree, dict) else type(tree).__name__
        raise ExperimentError(
            f"{file} holds {found}, expected keys of {sorted(KEYS)}, {' and '.join(NEEDED)} among them"
        )
    if not isinstance(tree["model"], dict) or not isinstance(tree["model"].get("config"), dict):
        raise ExperimentError(f"{file}: model needs a config, for every variant starts from nothing")
    seeds = tree.get("seeds", [1])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ExperimentError(f"{file}: seeds is {seeds!r}, expected a list of whole numbers")
    processes = tree.get("processes", 1)
    if type(processes) is not int or processes < 1:
        raise ExperimentError(f"{file}: processes is {processes!r}, expected 1 or more")
    stages = tree["stages"]
    if not isinstance(stages, list) or not stages or not (isinstance(stages[-1], dict) and stages[-1].get("eval_data")):
        raise ExperimentError(f"{file}: the last of stages needs eval_data, by which the variants are compared")
    name = str(tree.get("name", file.stem))
    return Experiment(
        name=name,
        output=Path(str(tree.get("output", f"runs/{name}"))),
        seeds=seeds,
        processes=processes,
        model=tree["model"],
        encoder=tree["encoder"],
        stages=stages,
        variants=_variants(tree["variants"], f"{file}: variants"),
    )


def _variants(raw: Any, where: str) -> list[Variant]:
    if not isinstance(raw, list) or not raw:
        raise ExperimentError(f"{where} is {raw!r}, expected a list of variants, each with a name")
    variants = [_of(Variant, item, f"{where}.{number}") for number, item in enumerate(raw)]
    for number, variant in enumerate(variants):
        if variant.pooling not in POOLINGS:
            raise ExperimentError(f"{where}.{number}.pooling is {variant.pooling!r}, expected one of {POOLINGS}")
        if (variant.pooling == NONE) != (variant.pool_size == UNPOOLED):
            raise ExperimentError(
                f"{where}.{number} has pooling {variant.pooling} and pool_size {variant.pool_size}: all visual tokens "
                f"are pooling: {NONE} with pool_size: {UNPOOLED}"
            )
    folders = [variant.folder for variant in variants]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise ExperimentError(f"{where} has two variants that are called {twice[0]!r}: give each a name of its own")
    return variants


def _of(kind: type, raw: Any, where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if not isinstance(raw, dict) or set(raw) - set(fields) or not needed <= set(raw):
        raise ExperimentError(f"{where} is {raw!r}, expected keys {list(fields)}")
    for name, value in raw.items():
        types = {option.strip() for option in str(fields[name].type).split("|")}
        if type(value).__name__ not in types and not (type(value) is int and "float" in types):
            raise ExperimentError(f"{where}.{name} is {value!r}, expected {fields[name].type}")
    return kind(**raw)


__all__ = ["Experiment", "ExperimentError", "Variant", "load_experiment"]
