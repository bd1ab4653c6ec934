"""Whole runs on files: bad samples left out and shown, the same losses packed or not, whatever the workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forked import run_python

from flashsloth.training.data import BadSampleError, BadSamples, DataError, TooManyBadSamplesError
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.world import World, export_split

TRAIN = "import sys; from flashsloth.cli.app import main; sys.exit(main(['train', *sys.argv[1:]]))"
RECIPE = """
name: files
seed: 3
model:
  tokenizer: world
  config:
    vision_config: {model_type: siglip_vision_model, image_size: 24, patch_size: 8, hidden_size: 16,
                    intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    text_config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2,
                  num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 2048}
    vision_feature_layer: -1
    num_query_tokens: 2
    query_size: 8
    embq_layer: 1
    embq_num_heads: 2
    sap_dropout: 0.0
stages:
  - {stage: instruction, steps: 4, batch_size: 4, micro_batch_size: 2, workers: 0, template: chat, learning_rate: 1e-2,
     max_bad_fraction: 0.2, log_every: 1, save_every: 100, precision: float32, attention: sdpa, data: []}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 conversations as JSON and JSONL: of two the picture is missing or damaged, three have none."""
    made = tmp_path_factory.mktemp("files")
    export_split(World(seed=1, split="train", level=1), made, 16)
    records = json.loads((made / "conversations.json").read_text(encoding="utf-8"))
    (made / records[2]["image"]).unlink()
    (made / records[7]["image"]).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for number in (4, 9, 12):
        del records[number]["image"]
        records[number]["conversations"] = [
            {"from": "human", "value": "What is one and one?"},
            {"from": "gpt", "value": f"It is two, said {number} times."},
        ]
    (made / "data.json").write_text(json.dumps(records), encoding="utf-8")
    (made / "data.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (made / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return made


def losses(folder: Path, name: str, source: str, **changes: Any) -> list[float]:
    """The losses of a run."""
    output = folder / name
    settings = [f"stages.0.{key}={value}" for key, value in changes.items()]
    data = f"stages.0.data=[{{{source}}}]"
    train(load_recipe(folder / "recipe.yaml", [f"output={output}", data, *settings]))
    log = json.loads((output / "0-instruction" / "log.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in log if "loss" in entry]


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[float]:
    return losses(folder, "plain", f"jsonl: {folder}/data.jsonl")


def test_losses_do_not_depend_on_format_or_workers(folder: Path, plain: list[float]) -> None:
    assert len(plain) == 4
    assert losses(folder, "workers", f"json: {folder}/data.json", workers=2) == plain
    records = [
        BadSamples(folder / name / "0-instruction" / "bad_samples.jsonl", 16, 1.0) for name in ("plain", "workers")
    ]
    found = [
        [(entry["index"], entry["id"], entry["kind"]) for entry in bad_samples.entries()] for bad_samples in records
    ]
    assert found[0] == found[1]
    assert [kind for _, _, kind in found[0]] == ["missing_picture", "unreadable_picture"]


def test_packed_losses_are_those_of_unpacked_samples(folder: Path, plain: list[float]) -> None:
    """Held-out samples are scored row by row, and never packed."""
    held_out = "[{world: 1, count: 4, split: test, most_turns: 2}]"
    changes = {"packing": "true", "micro_batch_size": 4, "eval_data": held_out}
    packed = losses(folder, "packed", f"jsonl: {folder}/data.jsonl", **changes)
    assert packed == pytest.approx(plain, abs=1e-4)


def test_a_held_out_text_is_looked_at_before_anything_is_learned(folder: Path) -> None:
    held_out = f"[{{json: {folder}/long.json, images: {folder}}}]"
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "because " * 999}]
    (folder / "long.json").write_text(json.dumps([{"id": "a", "conversations": turns}]), encoding="utf-8")
    with pytest.raises(BadSampleError, match=r"long\.json, sample 0 \(id 'a'\): has \d+ tokens, max_length is 999"):
        losses(folder, "long", f"jsonl: {folder}/data.jsonl", eval_data=held_out, max_length=999)


def test_a_held_out_picture_that_cannot_be_read_loses_nothing(folder: Path) -> None:
    held_out = f"[{{json: {folder}/held.json, images: {folder}}}]"
    records = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    (folder / "held.json").write_text(json.dumps([records[0], records[7]]), encoding="utf-8")
    with pytest.raises(DataError, match=r"held\.json, sample 1 .*a damaged or unusual PNG"):
        losses(folder, "held", f"jsonl: {folder}/data.jsonl", eval_data=held_out, eval_every=1, steps=1)
    assert (folder / "held" / "0-instruction" / "steps" / "checkpoint-1").is_dir()


def test_the_log_shows_how_many_were_left_out(folder: Path, plain: list[float]) -> None:
    log = json.loads((folder / "plain" / "0-instruction" / "log.json").read_text(encoding="utf-8"))
    assert [entry["bad_samples"] for entry in log if "loss" in entry][-1] == 2


def test_grouped_steps_are_other_steps_and_the_same_each_time(folder: Path, plain: list[float]) -> None:
    grouped = [
        losses(
            folder,
            f"grouped-{size}",
            f"jsonl: {folder}/data.jsonl",
            group_by_modality_length="true",
            micro_batch_size=size,
        )
        for size in (2, 4)
    ]
    assert grouped[0] == pytest.approx(grouped[1], abs=1e-5)
    assert grouped[0] != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_samples_stop_the_run_with_the_list(folder: Path, workers: int) -> None:
    with pytest.raises(TooManyBadSamplesError, match=r"more than max_bad_fraction 0\.1 allows") as error:
        losses(folder, f"bad-{workers}", f"jsonl: {folder}/data.jsonl", workers=workers, max_bad_fraction=0.1)
    assert "\n" not in str(error.value)
    assert "000002.png" in str(error.value)


def test_a_run_with_workers_ends(folder: Path) -> None:
    """Workers hear no signals: one that is left over would keep its process from ending."""
    data = f"[{{jsonl: {folder}/data.jsonl}}]"
    held_out = "[{world: 1, count: 2, split: test}]"
    settings = [f"output={folder / 'ends'}"]
    settings += [f"stages.0.{key}" for key in (f"data={data}", f"eval_data={held_out}", "eval_every=2", "workers=1")]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    done = run_python(TRAIN, str(folder / "recipe.yaml"), *arguments)
    assert done.returncode == 0, done.stderr
