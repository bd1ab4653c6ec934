"""Recipes: what is read, and what every mistake says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recipe_table import GROUPS, fields_table

from flashsloth.cli.app import main
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.recipe_fields import RecipeModel
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
    assert alignment.learning_rate == 2e-3
    assert alignment.trains == STAGES["alignment"].trains
    assert alignment.batch_size == 256
    assert instruction.steps == 10
    assert instruction.data[0].independent
    assert recipe.output == Path("runs/small")


def test_the_papers_stages_stand_in_the_table() -> None:
    alignment, instruction = STAGES["alignment"], STAGES["instruction"]
    assert (alignment.trains, alignment.learning_rate, alignment.batch_size) == (("projector", "sap"), 1e-3, 256)
    assert (instruction.learning_rate, instruction.batch_size, instruction.warmup) == (2e-5, 128, 0.03)
    assert "vision_encoder" not in instruction.trains
    assert set(STAGES["instruction_hd"].trains) == {*instruction.trains, "vision_encoder"}


MORE_CHANGES = ["model.path=other", "stages.1.data.0.count=7", "stages.alignment.epochs=2"]
JARGON = {"pydantic", "validation", "input", "valid", "int", "float", "str", "dict", "instance", "http"}


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, GOOD),
        ["stages.1.steps=99", *MORE_CHANGES],
    )
    assert recipe.stages[0].epochs == 2
    assert recipe.stages[1].steps == 99
    assert recipe.model.path == "other"
    assert recipe.stages[1].data[0].count == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage: alignment", "stage: alignmnt", 'stages.0.stage: found "alignmnt", expected encoder, alignment, instr'),
        (
            "learning_rate: 2e-3",
            "learning_rat: 2e-3",
            "learning_rat: unknown key, did you mean learning_rate?",
        ),
        ("learning_rate: 2e-3", "learning_rate: fast", 'learning_rate: found "fast", expected a number above 0'),
        ("learning_rate: 2e-3", "learning_rate:", "learning_rate: found null, expected a number above 0"),
        (
            "learning_rate: 2e-3",
            "learning_rate: -1",
            "stages.alignment.learning_rate: found -1, expected a number",
        ),
        ("learning_rate: 2e-3", "learning_rate: 0", "learning_rate: found 0, expected a number above 0"),
        ("learning_rate: 2e-3", "learning_rate: .inf", "learning_rate: found Infinity, expected a number above 0"),
        ("learning_rate: 2e-3", "learning_rate: true", "learning_rate: found true, expected a number above 0"),
        (
            "steps: 10",
            "steps: ten",
            'stages.instruction.steps: found "ten", expected a whole number from 1 to',
        ),
        ("steps: 10", "steps: 1.5", "steps: found 1.5, expected a whole number"),
        ("steps: 10", "steps: true", "steps: found true, expected a whole number"),
        ("steps: 10", "steps: 0", "steps: found 0, expected a whole number"),
        ("steps: 10", "steps: 1000000000000000000000", "steps: found 1000000000000000000000, expected a whole number"),
        ("steps: 10", "epochs: 0", "epochs: found 0, expected a number above 0"),
        ("steps: 10", "epochs: -1", "epochs: found -1, expected a number above 0"),
        ("steps: 10", "warmup: 5", "warmup: found 5, expected a number of at least 0 and below 1"),
        ("steps: 10", "weight_decay: -1", "weight_decay: found -1, expected a number of at least 0"),
        ("steps: 10", "max_grad_norm: .nan", "max_grad_norm: found NaN, expected a number of at least 0"),
        ("steps: 10", "max_bad_fraction: 2", "max_bad_fraction: found 2, expected a number from 0 to 1"),
        ("steps: 10", "workers: -1", "workers: found -1, expected a whole number from 0"),
        ("steps: 10", "shuffle: 1", "shuffle: found 1, expected true or false"),
        ("steps: 10", "activation_checkpointing: maybe", 'found "maybe", expected true, false or auto'),
        ("steps: 10", "micro_batch_size: 3", "micro_batch_size: found 3, which does not divide batch_size, 128"),
        ("steps: 10", "objective: patches", "objective: unknown key"),
        ("steps: 10", "attention: fast", 'attention: found "fast", expected sdpa, eager, flash_attention_2'),
        ("steps: 10", "trains: [sap, sap]", "which names a part twice"),
        ("steps: 10", "trains: [brain]", 'trains.0: found "brain", expected vision_encoder, sap'),
        ("steps: 10", "template: fancy", 'template: found "fancy", expected plain, chat or published_chat'),
        ("steps: 10", "steps: 10\n    steps: 20", "'steps' is there twice"),
        ("steps: 10", "adapter: {rank: 0}", "adapter.rank: found 0, expected a whole number from 1"),
        ("steps: 10", "adapter: {targets: []}", "found [], expected auto or a list of layers' names"),
        ("steps: 10", "adapter: {patch: 1}", "adapter.patch: unknown key, expected one of rank, alpha"),
        ("steps: 10", "1: 2", "stages.instruction.1: unknown key"),
        ("{path: somewhere}", "{}", "model: needs exactly one of path"),
        ("{path: somewhere}", "{pth: somewhere}", "model.pth: unknown key, did you mean path?"),
        ("{path: somewhere}", "{config: {}}", "model.tokenizer: missing, expected 'world'"),
        ("{path: somewhere}", "somewhere", 'model: found "somewhere", expected a group of keys: path, config'),
        ("world: 3, count: 100", "world: 3", "stages.instruction.data.0.count: missing, expected how many pictures"),
        ("world: 3, count: 100", "world: 3, count: 5, json: x", "found json and world, expected exactly one of json"),
        ("world: 3, count: 100", "world: 4, count: 5", "data.0.world: found 4, expected a whole number from 0 to 3"),
        ("world: 3, count: 100", "world: 3, count: 5, split: dev", 'split: found "dev", expected train or test'),
        ("json: captions.json", "json: captions.json, count: 5", "data.0.count: found 5, but it does not go with json"),
        ("json: captions.json", "json: captions.json, weight: 0", "data.0.weight: found 0, expected a number above 0"),
        ("json: captions.json", "json: captions.json, weight: 1e300", "weight: found 1e+300, expected a number above"),
        ("json: captions.json", "json: captions.json, independent: true", "independent: needs questions to tell apart"),
        ("steps: 10", "settings: {}", "stages.instruction.settings: unknown key"),
        ("steps: 10", "weight_decay: 5e4", "weight_decay: found 50000, which times learning_rate, 2e-05, is 1 or more"),
        ("learning_rate: 2e-3", "trains: [sap, embq]", "trains: found embq, which template plain has no use for"),
        (
            "stage: alignment",
            "stage: encoder",
            "stages.encoder.data.0: found json, but stage encoder learns from drawn",
        ),
        ("learning_rate: 2e-3", "patch_loss: 1", "data.0: found json, but patch_loss learns from drawn pictures"),
        (
            "name: small",
            "export_dtype: fp17",
            'export_dtype: found "fp17", expected float32, bfloat16, float16',
        ),
        ("name: small", "nam: small", "nam: unknown key, did you mean name?"),
        ("name: small", "seed: -1", "seed: found -1, expected a whole number from 0"),
        ("name: small", "report_to: [paper]", 'report_to.0: found "paper", expected tensorboard or wandb'),
        ("name: small", "matrix_rate: 0", "matrix_rate: found 0, expected a number of at least 1 or null"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, GOOD.replace(old, new)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not JARGON & set(str(error.value).lower().replace("_", " ").split())


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """Also contradictions beside values that are wrong by themselves; and no more than there are."""
    wrong = GOOD.replace("learning_rate: 2e-3", "learning_rate: -1\n    engine: {offload: true}")
    wrong = wrong.replace("steps: 10", "step: 10\n    micro_batch_size: 7").replace("world: 3, count: 100", "world: 3")
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, wrong), ["seed=x"])
    title, *lines = str(error.value).splitlines()
    assert title.endswith("recipe.yaml has 6 mistakes:")
    assert {line.split(":")[0].strip() for line in lines} == {
        "seed",
        "stages.alignment.learning_rate",
        "stages.alignment.engine.offload",
        "stages.instruction.step",
        "stages.instruction.micro_batch_size",
        "stages.instruction.data.0.count",
    }


def test_a_source_that_is_wrong_by_itself_is_told_once(tmp_path: Path) -> None:
    """Also where the stage has something to say about the kind of source that it would be."""
    wrong = GOOD.replace("stage: alignment", "stage: encoder").replace(
        "json: captions.json, images: pictures", "world: 9"
    )
    with pytest.raises(RecipeError) as error:
        load_recipe(write(tmp_path, wrong))
    assert "stages.encoder.data.0.world: found 9" in str(error.value)
    assert "drawn pictures" not in str(error.value)


def test_the_command_tells_each_mistake_in_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, GOOD.replace("learning_rate: 2e-3", "learning_rate: 0").replace("steps: 10", "steps: 0"))
    assert main(["train", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        "error",
        "stages.alignment.learning_rate",
        "stages.instruction.steps",
    ]


def test_what_a_file_may_leave_out_or_write_otherwise(tmp_path: Path) -> None:
    text = GOOD.replace("name: small", "name: 2024\nreport_to:").replace("steps: 10", "steps: null\n    engine: null")
    text = text.replace("[{world: 3, count: 100, independent: true}]", "{world: 3, count: 100}\n    eval_data:")
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.name, recipe.output) == ("2024", Path("runs/2024"))
    assert recipe.report_to == recipe.stages[1].eval_data == []
    assert recipe.stages[1].data[0].count == 100
    assert recipe.stages[1].engine.kind == "ddp"


def test_the_table_of_fields_is_the_models() -> None:
    written = (Path(__file__).parents[2] / "docs" / "recipe-fields.md").read_text(encoding="utf-8")
    assert written == fields_table(), "python tools/recipe_table.py > docs/recipe-fields.md"
    assert all(field.description for kind in GROUPS.values() for field in kind.model_fields.values())


def test_every_field_says_what_resuming_does_with_it() -> None:
    with pytest.raises(TypeError, match=r"New\.patience: say FREE, FROM_HERE or fixed"):

        class New(RecipeModel):
            patience: int = 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "expected key=value"),
        ("stages.0..steps=1", "expected key=value"),
        ("stages.5.steps=1", "does not name one of 2 items"),
        ("stages.encoder.steps=1", "does not name one of 2 items"),
        ("stages.0.stage.x=1", "inside a str"),
        ("name=[1", "the value of name is not YAML"),
        ("stages.instruction.steps=0", "stages.instruction.steps: found 0"),
        ("model.path.deeper=1", "inside a str"),
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


def test_pydantic_is_imported_by_commands_that_read_such_files_alone() -> None:
    code = "import sys; from flashsloth.cli.app import main; main(['--help']); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
