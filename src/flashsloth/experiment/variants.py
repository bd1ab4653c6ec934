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

In: the file. Out: a checked :class:`Experiment`. What stands under `model`, `encoder` and `stages` is checked as the
training recipes that are made of it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from flashsloth.experiment.poolings import NONE, Pooling
from flashsloth.strict_model import Problem, StrictModel, found, read_model
from flashsloth.training.recipe import Recipe, load_recipe, recipe_of
from flashsloth.whole_file import write_whole
from flashsloth.yaml_file import read_yaml, write_yaml

ENCODER_FOLDER = "encoder"
UNPOOLED = 1
"""Side of the windows of a variant that keeps all visual tokens."""


class ExperimentError(ValueError):
    """A mistake in an experiment's file."""


class Variant(StrictModel):
    """One of the models."""

    name: str = Field(min_length=1)
    """In the table."""
    pooling: Pooling = "sap"
    """What makes fewer visual tokens of many."""
    pool_size: int = Field(3, ge=1, le=1024)
    """Side of a window: 3 for 9 times fewer visual tokens, 6 for 36 times."""
    embq: bool = True
    """Whether the query tokens look at the picture."""
    num_query_tokens: Annotated[int, Field(ge=1)] | None = None
    """None for the model's own."""
    embq_layer: Annotated[int, Field(ge=0)] | None = None
    """None for the model's own."""

    def problems(self) -> Iterator[Problem]:
        if not self.folder:
            yield Problem(("name",), f"found {found(self.name)}, which holds no letter and no digit")
        if (self.pooling == NONE) != (self.pool_size == UNPOOLED):
            said = (
                f"found {self.pool_size} with pooling {self.pooling}: all visual tokens are pooling: {NONE} with "
                f"pool_size: {UNPOOLED}"
            )
            yield Problem(("pool_size",), said, (("pooling",),))

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


class Experiment(StrictModel):
    """All of it."""

    name: str = Field(min_length=1)
    """Of the experiment."""
    output: Path = Field(strict=False)
    """Its folder."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field([1], min_length=1)
    """Every variant is trained with each of them."""
    processes: int = Field(1, ge=1, le=1024)
    """Runs at a time, on one device."""
    model: dict[str, Any]
    """As in a training recipe, with a `config`: every variant starts from nothing."""
    encoder: list[dict[str, Any]] = Field(min_length=1)
    """As in a training recipe: stages that make the shared encoder."""
    stages: list[dict[str, Any]] = Field(min_length=1)
    """As in a training recipe: stages that every variant goes through."""
    variants: list[Variant] = Field(min_length=1)
    """The models."""

    def problems(self) -> Iterator[Problem]:
        if not isinstance(self.model.get("config"), dict):
            yield Problem(("model",), "needs a config, for every variant starts from nothing")
        if not self.stages[-1].get("eval_data"):
            last = len(self.stages) - 1
            yield Problem(("stages", last, "eval_data"), "missing, expected what the variants are compared by")
        folders = [variant.folder for variant in self.variants]
        for number, folder in enumerate(folders):
            if folder in folders[:number]:
                said = f"a variant before is called {folder!r} too: give each a name of its own"
                yield Problem(("variants", number, "name"), said)

    def encoder_recipe(self) -> Recipe:
        """What makes the shared encoder."""
        return self._written(self.output / ENCODER_FOLDER, self._encoder_tree())

    def run_folder(self, variant: Variant, seed: int) -> Path:
        """Where a run leaves what it found."""
        return self.output / f"{variant.folder}-{seed}"

    def recipe(self, variant: Variant, seed: int) -> Recipe:
        """What one variant learns."""
        return self._written(self.run_folder(variant, seed), self._tree(variant, seed))

    def check(self, file: str) -> None:
        """Find what training would refuse, before anything is trained.

        Raises:
            RecipeError: for everything that is not right under `model`, `encoder` and `stages`.
        """
        recipe_of(self._encoder_tree(), f"{file}, encoder", ENCODER_FOLDER)
        for variant in self.variants:
            recipe_of(self._tree(variant, self.seeds[0]), file, variant.folder)

    def _encoder_tree(self) -> dict[str, Any]:
        folder = self.output / ENCODER_FOLDER
        tree = {"name": ENCODER_FOLDER, "output": str(folder), "seed": self.seeds[0], "model": self.model}
        return {**tree, "stages": self.encoder}

    def _tree(self, variant: Variant, seed: int) -> dict[str, Any]:
        folder = self.run_folder(variant, seed)
        model = {**self.model, "config": variant.config(self.model["config"])}
        tree = {"name": f"{variant.folder}-{seed}", "output": str(folder), "seed": seed, "model": model}
        return {**tree, "stages": self.stages}

    def _written(self, folder: Path, tree: dict[str, Any]) -> Recipe:
        """A training recipe, beside what it makes."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.with_suffix(".yaml")
        write_whole(file, write_yaml(tree))
        return load_recipe(file)


def load_experiment(path: str | Path) -> Experiment:
    """Read and check an experiment.

    Raises:
        ExperimentError, RecipeError: for everything that is not right in it.
    """
    file = Path(path)
    tree = read_yaml(file, "experiment", "recipes/experiments/claim.yaml", ExperimentError)
    if not isinstance(tree, dict):
        raise ExperimentError(f"{file} holds a {type(tree).__name__}, expected keys such as model, stages, variants")
    named = {**tree, "name": tree.get("name", file.stem)}
    named["output"] = tree.get("output", f"runs/{named['name']}")
    experiment = read_model(Experiment, named, ExperimentError, str(file))
    experiment.check(str(file))
    return experiment


__all__ = ["Experiment", "ExperimentError", "Variant", "load_experiment"]
