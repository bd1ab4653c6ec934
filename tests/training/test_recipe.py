"""Recipes: what is read, and what every mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.stages import STAGES

RECIPES = sorted(
    path for path in (Path(__file__).parents[2] / "recipes").glob("**/*.yaml") if "experiments" not in path.parts
)
GOOD = """
name: small
model: {path: somewhere}
stages:
  - stage: alignment
    learning_rate: 2e-3
    data: [{json: captions.json, images: pictures}]
  - stage: instruction
    steps: 10
    data: [{world: 3, count: 100, independent: true}]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_stage_is_its_row_with_the_recipes_changes(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    alignment, instruction = recipe.stages
    assert alignment.settings.learning_rate == 2e-3
    assert alignment.settings.trains == STAGES["alignment"].trains
    assert alignment.settings.batch_size == 256
    assert instruction.steps == 10
    assert instruction.data[0].independent
    assert recipe.output == Path("runs/small")


def test_the_papers_stages_stand_in_the_table() -> None:
    alignment, instruction = STAGES["alignment"], STAGES["instruction"]
    assert (alignment.trains, alignment.learning_rate, alignment.batch_size) == (("projector", "sap"), 1e-3, 256)
    assert (instruction.learning_rate, instruction.batch_size, instruction.warmup) == (2e-5, 128, 0.03)
    assert "vision_encoder" not in instruction.trains
    assert set(STAGES["instruction_hd"].trains) == {*instruction.trains, "vision_encoder"}


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["stages.1.steps=99", "model.path=other", "stages.1.data.0.count=7"])
    assert recipe.stages[1].steps == 99
    assert recipe.model.path == "other"
    assert recipe.stages[1].data[0].count == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage: alignment", "stage: alignmnt", "stages.0.stage is 'alignmnt', expected one of"),
        ("learning_rate: 2e-3", "learning_rat: 2e-3", "has no key 'learning_rat': did you mean 'learning_rate'"),
        ("learning_rate: 2e-3", "learning_rate: fast", "stages.0.learning_rate is 'fast', expected float"),
        ("steps: 10", "steps: ten", "stages.1.steps is 'ten', expected int"),
        ("{path: somewhere}", "{}", "model needs exactly one of path"),
        ("world: 3, count: 100", "world: 3", "stages.1.data.0.count is missing"),
        ("world: 3, count: 100", "world: 3, count: 5, json: x", "needs exactly one of json"),
        ("steps: 10", "trains: [brain]", "trains names ['brain']"),
        ("name: small", "export_dtype: fp17", "export_dtype is 'fp17', expected one of"),
        ("name: small", "nam: small", "the recipe has no key 'nam': did you mean 'name'"),
        ("steps: 10", "template: fancy", "stages.1.template is 'fancy', expected one of"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, GOOD.replace(old, new)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "expected key=value"),
        ("stages.5.steps=1", "does not name one of 2 items"),
        ("stages.0.stage.x=1", "inside a str"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, GOOD), [override])


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="is not YAML"):
        load_recipe(write(tmp_path, "a: [1"))
    with pytest.raises(RecipeError, match="holds a str"):
        load_recipe(write(tmp_path, "just words"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_is_right(path: Path) -> None:
    assert load_recipe(path).stages
