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

In: the file. Out: a checked :class:`Experiment`; and of a variant with a seed a freshly drawn model and its processor,
with the encoder that all share. What stands under `model`, `encoder` and `stages` is checked as the training recipes
that are made of it.

Connectors other than SAP make as few visual tokens in other ways: of features of N views, float [N, P, V], P patches of
a square grid in row order, float [N, R, V] for R windows of k x k patches, k the configuration's `pool_size`; of pixel
shuffle [N, R, k*k*V].

- `average`: the mean of each window.
- `shuffle`: space to depth, as InternVL has it: a window's patches side by side, and a projector that is so much wider.
- `resampler`: R learned queries that read the whole picture, in blocks of self-attention, cross-attention and MLP, as
  in BLIP-2's Q-Former.
- `none`: all patches: windows of one patch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from transformers import set_seed

from flashsloth.errors import FlashSlothError
from flashsloth.files import write_whole
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.init_model import start_model
from flashsloth.training.recipe import ModelSource, Recipe, load_recipe, recipe_of
from flashsloth.yaml_file import Problem, StrictModel, found, read_model, read_yaml, write_yaml

Pooling = Literal["sap", "average", "shuffle", "resampler", "none"]
POOLINGS = get_args(Pooling)
SAP, AVERAGE, SHUFFLE, RESAMPLER, NONE = POOLINGS
ENCODER_FOLDER = "encoder"
UNPOOLED = 1
"""Side of the windows of a variant that keeps all visual tokens."""
RESAMPLER_LAYERS = 2
RESAMPLER_WIDENING = 4
"""Of the resampler's MLP, as in a transformer's."""


class AveragePooling(nn.Module):
    """The mean of each window."""

    pool: Callable[..., torch.Tensor] = staticmethod(F.avg_pool2d)

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        self.grid, self.size = config.patch_grid, config.pool_size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        maps = features.transpose(1, 2).unflatten(-1, (self.grid, self.grid))  # [N, V, g, g]
        return self.pool(maps, self.size).flatten(2).transpose(1, 2)  # [N, R, V], or [N, R, k*k*V]


class PixelShuffle(AveragePooling):
    """A window's patches side by side: [N, R, k*k*V]."""

    pool = staticmethod(F.pixel_unshuffle)


class Resampler(nn.Module):
    """Learned queries that read the picture."""

    def __init__(self, config: FlashSlothConfig) -> None:
        super().__init__()
        width, heads = config.vision_config.hidden_size, config.vision_config.num_attention_heads
        self.queries = nn.Parameter(torch.randn(config.num_windows, width) * config.initializer_range)
        layer = nn.TransformerDecoderLayer(
            width, heads, RESAMPLER_WIDENING * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerDecoder(layer, RESAMPLER_LAYERS, norm=nn.LayerNorm(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        queries = self.queries.to(features.dtype).expand(len(features), -1, -1)  # [N, R, V]
        return self.blocks(queries, self.norm(features))


class QueriesThatDoNotLook(nn.Module):
    """In EmbQ's place: the query tokens stay what they are."""

    def forward(self, hidden_states: torch.Tensor, inputs: EmbeddedQueryInputs) -> torch.Tensor:
        return hidden_states


_MODULES: dict[str, type[nn.Module]] = {
    AVERAGE: AveragePooling,
    SHUFFLE: PixelShuffle,
    RESAMPLER: Resampler,
    NONE: AveragePooling,
}


def exchange_pooling(model: FlashSlothForConditionalGeneration, pooling: str) -> None:
    """Put another connector into SAP's place, freshly drawn."""
    if pooling == SAP:
        return
    config: FlashSlothConfig = model.config
    model.model.set_submodule("spatial_attention_pooling", _MODULES[pooling](config))
    if pooling == SHUFFLE:
        old = model.model.projector.linear_1
        wider = nn.Linear(config.pool_size**2 * old.in_features, old.out_features)
        nn.init.normal_(wider.weight, std=config.initializer_range)
        nn.init.zeros_(wider.bias)
        model.model.projector.linear_1 = wider


def remove_embedded_query(model: FlashSlothForConditionalGeneration) -> None:
    """Leave the query tokens in the prompt, and let them see no more than other tokens do."""
    model.model.set_submodule("embedded_query", QueriesThatDoNotLook())


class ExperimentError(FlashSlothError, ValueError):
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


def make_variant(
    source: ModelSource, variant: Variant, seed: int, encoder: Path | None = None, attention: str = "sdpa"
) -> tuple[FlashSlothForConditionalGeneration, FlashSlothProcessor]:
    """The model of a variant.

    Args:
        source: a model from nothing; the variant's own fields take the place of its.
        variant: which one.
        seed: of everything that is drawn.
        encoder: a checkpoint whose encoder it gets; None for a drawn one.
        attention: transformers' name of the implementation.
    """
    assert source.config is not None
    set_seed(seed)
    model, processor = start_model(source.model_copy(update={"config": variant.config(source.config)}), attention)
    exchange_pooling(model, variant.pooling)
    if not variant.embq:
        remove_embedded_query(model)
    if encoder is not None:
        from flashsloth.inference.load import load

        taught = load(encoder, device="cpu", dtype="float32", optimize=False).model.model.vision_tower
        model.model.vision_tower.load_state_dict(taught.state_dict())
    return model, processor
