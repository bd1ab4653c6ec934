"""A recipe: one YAML file that says what to train on what, and only where that differs from the stage's row.

In: a YAML file and `key=value` overrides (`stages.0.steps=100`, `stages.instruction.steps=100`). Out: a checked
:class:`Recipe`. All mistakes are listed at once, in a :class:`RecipeError`, each with its place in the file, what was
found and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from flashsloth.errors import FlashSlothError
from flashsloth.training.recipe_fields import FREE, RecipeError, RecipeModel, Seed, fixed
from flashsloth.training.stages import STAGES, StageRun, arranged_stage
from flashsloth.yaml_file import Place, Problem, dotted, listed, parse_yaml, read_model, read_yaml

Reporter = Literal["tensorboard", "wandb"]
_START = "the run began with another model"


class OverrideError(FlashSlothError, ValueError):
    """A change that cannot be made."""


def override(tree: dict[str, Any], change: str) -> None:
    """Set one dotted key in the raw tree.

    Raises:
        OverrideError: if it names no place, or its value is not YAML.
    """
    path, separator, text = change.partition("=")
    keys = path.split(".")
    if not separator or not all(keys):
        raise OverrideError(f"found {change!r}, expected key=value, such as stages.0.steps=100")
    node: Any = tree
    *parents, last = keys
    value = parse_yaml(text, f"the value of {path}", OverrideError)
    for part in parents:
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[_key(node, part, path)]
    node[_key(node, last, path)] = value


def _key(node: Any, part: str, path: str) -> str | int:
    """A part of a path as the key of a group, or the number of a list's item."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise OverrideError(f"{path}: {part!r} is inside a {type(node).__name__}, not a group of keys")
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    named = [index for index, item in enumerate(node) if isinstance(item, dict) and item.get("stage") == part]
    if len(named) > 1:
        raise OverrideError(f"{path}: several items are called {part!r}: expected one of the numbers {named}")
    if not named:
        raise OverrideError(f"{path}: {part!r} does not name one of {len(node)} items (0..{len(node) - 1})")
    return named[0]


class ModelSource(RecipeModel):
    """Where the model comes from: `path` of a checkpoint, or `config` (and `tokenizer`) to start from nothing."""

    path: Annotated[str | None, Field(min_length=1), fixed(_START)] = None
    """A checkpoint's folder or name, ours or published."""
    config: Annotated[dict[str, Any] | None, fixed(_START)] = None
    """Fields of FlashSlothConfig; placeholder ids and vocabulary size are the tokenizer's."""
    tokenizer: Annotated[str | None, Field(min_length=1), fixed(_START)] = None
    """`world` for the drawn world's own, or a name or path."""
    system_prompt: Annotated[str, fixed("the text of every sample would be another")] = ""
    """What opens every conversation."""
    image_aspect_ratio: Annotated[Literal["square", "pad"], fixed("pictures would look otherwise")] = "square"
    """`square` or `pad`, see the image processor."""

    def problems(self) -> Iterator[Problem]:
        if (self.path is None) == (self.config is None):
            yield Problem((), "needs exactly one of path (a checkpoint) and config (to start from nothing)")
        elif self.config is not None and self.tokenizer is None:
            yield Problem(("tokenizer",), "missing, expected 'world', or a tokenizer's name or path, beside config")


class Recipe(RecipeModel):
    """A model and the stages it goes through, one after the other."""

    name: Annotated[str, Field(min_length=1), FREE]
    """Of the run; without it, the file's."""
    output: Annotated[Path, Field(strict=False), FREE]
    """The run's folder; without it, `runs/` and the name."""
    model: Annotated[ModelSource, fixed(_START)]
    """Where it starts."""
    stages: Annotated[list[StageRun], Field(min_length=1), fixed("the run began with other stages")]
    """In order."""
    seed: Annotated[Seed, fixed("steps would learn from other samples")] = 0
    """Of everything that is drawn."""
    export_dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, FREE] = None
    """Precision of the copy in `final/`; null for no copy."""
    report_to: Annotated[list[Reporter], FREE] = Field(default_factory=list)
    """Where the log goes beside the run's folder."""
    matrix_rate: Annotated[Annotated[float, Field(ge=1)] | None, FREE] = None
    """Operations a second that one device can do, for model FLOPs utilisation; null to measure it."""

    def problems(self) -> Iterator[Problem]:
        """An adapter is kept without its base, so the base has to be somewhere on disk."""
        for index, stage in enumerate(self.stages):
            if stage.adapter is None:
                continue
            if index == 0 and self.model.path is None:
                said = "needs a model.path: what is made from nothing is nowhere to be found again"
                yield Problem(("stages", 0, "adapter"), said, (("model",),))
            if index > 0 and self.stages[index - 1].adapter is not None:
                said = "follows another adapter: merge that one with `flashsloth merge`, and start a recipe from there"
                yield Problem(("stages", index, "adapter"), said, (("stages", index - 1, "adapter"),))


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value`, values as YAML; list items by number, stages also by name.

    Raises:
        RecipeError: for everything that is not right in it.
    """
    file = Path(path)
    tree = read_yaml(file, "recipe", "those in recipes/", RecipeError)
    if not isinstance(tree, dict):
        raise RecipeError(f"{file} holds a {type(tree).__name__}, expected keys such as name, model, stages")
    mistakes = []
    for change in overrides or []:
        try:
            override(tree, change)
        except OverrideError as error:
            mistakes.append(str(error))
    if mistakes:
        raise RecipeError(listed("--set", mistakes))
    return recipe_of(tree, str(file), file.stem)


def recipe_of(tree: dict[str, Any], file: str, default_name: str) -> Recipe:
    """A recipe of what YAML read.

    Raises:
        RecipeError: for everything that is not right in it, calling it `file`.
    """
    stages = tree.get("stages")
    arranged = {**tree, "name": _text(tree.get("name", default_name))}
    arranged["output"] = _text(tree.get("output", f"runs/{arranged['name']}"))
    arranged["report_to"] = [] if tree.get("report_to") is None else tree["report_to"]
    if isinstance(stages, list):
        arranged["stages"] = [arranged_stage(stage) for stage in stages]
    return read_model(Recipe, arranged, RecipeError, file, lambda place: place_in(stages, place))


def resolved(recipe: Recipe) -> dict[str, Any]:
    """A recipe with everything said, as `load_recipe` reads it."""
    return recipe.model_dump(mode="json")


def place_in(stages: Any, place: Place) -> str:
    """A place of a recipe's model as the file has it; a stage that stands there once by its name."""
    keys = list(place)
    if len(keys) > 1 and keys[0] == "stages" and isinstance(stages, list):
        names = [str(stage.get("stage")) if isinstance(stage, dict) else "" for stage in stages]
        name = names[int(keys[1])]
        if name in STAGES and names.count(name) == 1:
            keys[1] = name
    return dotted(tuple(keys))


def _text(value: Any) -> Any:
    """A name that YAML took for a number."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
