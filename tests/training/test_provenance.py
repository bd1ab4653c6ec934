"""What is written down of a run: enough to repeat it, and to refuse to go on with something else."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flashsloth.training import provenance
from flashsloth.training.data.json_data import companion
from flashsloth.training.provenance import (
    RunExistsError,
    data_digests,
    locked_folder,
    write_record,
)
from flashsloth.training.recipe import load_recipe, resolved
from flashsloth.training.resume import RecipeChangedError
from flashsloth.version import __version__
from tests.training import tiny_runs

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*nano.yaml"))
ADAPTED = """
model: {{path: somewhere, system_prompt: "A: 'chat' #1"}}
output: {folder}/out
report_to: [tensorboard]
stages:
  - stage: instruction
    data: [{{json: {folder}/a.json, weight: 0.5}}, {{json: {folder}/a.json}}, {{world: 1, count: 3}}]
    eval_data: [{{json: {folder}/b.json}}]
    adapter: {{rank: 4, targets: [q_proj], learning_rate: 1e-4}}
    save_total_limit: null
    max_grad_norm: 0
"""


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(f'[{{"id": "{name}"}}]', encoding="utf-8")
    path = tmp_path / "adapted.yaml"
    path.write_text(ADAPTED.format(folder=tmp_path), encoding="utf-8")
    return path


def same_again(recipe: Any, folder: Path) -> Any:
    import yaml

    path = folder / "again.yaml"
    path.write_text(yaml.safe_dump(resolved(recipe)), encoding="utf-8")
    return load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_the_project_reads_back_as_it_was(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert same_again(recipe, tmp_path) == recipe


def test_a_recipe_with_changes_reads_back_as_it_was(adapted: Path, tmp_path: Path) -> None:
    recipe = load_recipe(adapted, ["stages.0.steps=7", "seed=3", "stages.0.trains=[projector, language_model]"])
    assert same_again(recipe, tmp_path) == recipe


def test_the_record_of_a_run(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.sys, "argv", ["flashsloth", "train", "my recipe.yaml"])
    recipe = load_recipe(adapted)
    write_record(recipe, resumed=False)
    write_record(recipe, resumed=True)
    assert load_recipe(recipe.output / "recipe.yaml") == recipe
    run = json.loads((recipe.output / "run.json").read_text(encoding="utf-8"))
    assert [start["resumed"] for start in run["starts"]] == [False, True]
    first = run["starts"][0]
    assert first["command"] == "flashsloth train 'my recipe.yaml'"
    assert first["versions"]["flashsloth"] == __version__
    assert {"torch", "transformers", "python"} <= set(first["versions"])
    assert first["processes"] == 1
    source = first["source"]
    assert source is None or (len(source["commit"]) == 40 and source["dirty"] == bool(source["uncommitted"]))
    assert [Path(name).name for name in run["data"]] == ["a.json", "b.json"]
    assert run["data"][str(adapted.parent / "a.json")]["bytes"] == 13


def test_the_sources_repository_is_looked_at_and_never_locked(tmp_path: Path) -> None:
    """`git status` refreshes the index where a file was touched, under a lock that a killed run would leave."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("a", encoding="utf-8")
    git("add", "a")
    os.utime(tmp_path / "a", (1, 1))
    before = (tmp_path / ".git" / "index").read_bytes()
    assert provenance._git(tmp_path, "status", "--porcelain") == "A  a"
    assert (tmp_path / ".git" / "index").read_bytes() == before


def test_changed_data_is_refused_with_its_name(adapted: Path) -> None:
    write_record(load_recipe(adapted), resumed=False)
    (adapted.parent / "a.json").write_text('[{"id": "c"}]', encoding="utf-8")
    with pytest.raises(RecipeChangedError, match=r"data changed since the run began: .*a\.json; the order"):
        write_record(load_recipe(adapted), resumed=True)


@pytest.mark.parametrize("text", ["", "{{:", "[]", "5", '{"data": {}, "starts": []}', '[{"a": 1}]', "\udcff"])
@pytest.mark.parametrize("name", ["run.json", "history.json"])
def test_a_record_that_is_damaged_is_named(adapted: Path, name: str, text: str) -> None:
    write_record(load_recipe(adapted), resumed=False)
    file = load_recipe(adapted).output / name
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    if (name, text) == ("history.json", "[]"):
        return  # nothing changed so far
    with pytest.raises(RecipeChangedError, match=rf"{name} is not what a run wrote .*: put it back, or remove it"):
        write_record(load_recipe(adapted, ["stages.0.workers=3"]), resumed=True)


def test_answers_beside_questions_are_data_too(tmp_path: Path) -> None:
    """VQAv2's annotations; other files in the same folder are not."""
    for name, value in (("v2_questions", '{"info": {}, "questions": [{}]}'), ("v2_annotations", '{"annotations": []}')):
        (tmp_path / f"{name}.json").write_text(value, encoding="utf-8")
    (tmp_path / "list.json").write_text("[{}]", encoding="utf-8")
    assert companion(tmp_path / "v2_questions.json") == tmp_path / "v2_annotations.json"
    assert companion(tmp_path / "list.json") is None
    stage = f"stage: instruction, data: [{{json: {tmp_path}/v2_questions.json}}]"
    recipe = load_recipe(tiny_runs.write_recipe(tmp_path / "run", stage))
    assert [Path(name).name for name in data_digests(recipe)] == ["v2_questions.json", "v2_annotations.json"]


def test_a_very_large_file_is_known_by_its_ends(adapted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(provenance.FILE_KEYS, "json", (".json", 8))
    monkeypatch.setattr(provenance, "ENDS_BYTES", 3)
    recipe = load_recipe(adapted)
    before = data_digests(recipe)
    (adapted.parent / "a.json").write_text('[{"id": "c"}]', encoding="utf-8")  # the middle
    assert data_digests(recipe) == before
    (adapted.parent / "a.json").write_text('[{"id": "a"}) ', encoding="utf-8")  # the end
    assert data_digests(recipe) != before


def test_other_versions_are_told_and_not_refused(adapted: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe(adapted)
    write_record(recipe, resumed=False)
    path = recipe.output / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["starts"][0]["processes"] = 8
    path.write_text(json.dumps(run), encoding="utf-8")
    write_record(recipe, resumed=True)
    assert "processes: was 8, is 1; the run goes on, but perhaps not bit for bit" in caplog.text


def taken_for(folder: Path, held: Any) -> bool:
    """Whether another process finds a run in a folder, while this one is in `held`."""
    with held:
        child = os.fork()
        if child == 0:
            try:
                with locked_folder(folder):
                    os._exit(0)
            except RunExistsError as error:
                os._exit(1 if "another process trains into" in str(error) else 2)
        return bool(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1)


def test_a_second_run_is_kept_out_of_the_folder(tmp_path: Path) -> None:
    assert taken_for(tmp_path / "out", locked_folder(tmp_path / "out"))
    assert not taken_for(tmp_path / "elsewhere", locked_folder(tmp_path / "out"))
    assert not taken_for(tmp_path / "out", nullcontext())
