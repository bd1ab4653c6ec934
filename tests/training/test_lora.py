"""Stages that learn through an adapter: what learns and what rests, going on, what is left, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_runs
import torch
from fine_tuned import TRAINS, adapted, batch, load_base, save_base
from safetensors.torch import load_file

import flashsloth
from flashsloth.checkpoint.adapter import AdapterError, read_adapter
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.lora import add_adapter, find_base, target_names
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.recipe_fields import AdapterSettings
from flashsloth.training.run import train
from flashsloth.training.trainer import StageTrainer

STAGE = """
name: adapted
output: {output}
seed: 3
model: {{path: {base}}}
matrix_rate: 1.0e9
stages:
  - {{stage: instruction, steps: 4, batch_size: 4, micro_batch_size: 2, workers: 0, template: chat, save_every: 2,
      learning_rate: 1.0e-2, activation_checkpointing: true, adapter: {{rank: 2, learning_rate: 3.0e-2}},
      data: [{{world: 1, count: 16, most_turns: 2}}], eval_data: [{{world: 1, count: 2, split: test, most_turns: 1}}]}}
"""
STEPS, MICRO_BATCHES = 4, 2
DISTRIBUTED_STEPS = 6
FROZEN = ("model.vision_tower", "lm_head")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model in float16."""
    text = {**tiny.TEXT, "hidden_size": 64, "intermediate_size": 128}  # whole blocks of NF4
    return save_base(tmp_path_factory.mktemp("base") / "base", torch.float16, text_config=text)


def recipe_of(folder: Path, base: Path, *changes: str) -> Any:
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(STAGE.format(output=folder / "out", base=base), encoding="utf-8")
    return load_recipe(file, list(changes))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run with an adapter left."""
    folder = tmp_path_factory.mktemp("made")
    return train(recipe_of(folder, base))


def test_a_stage_leaves_an_adapter_that_says_what_it_is(made: Path, base: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "base.json", "processor_config.json"} <= names
    assert not {"config.json", "model.safetensors", "training_args.bin"} & names
    found = read_adapter(made)
    assert found.base is not None
    assert found.base.name == str(base)
    assert found.settings["r"] == 2
    size = sum(path.stat().st_size for path in made.glob("*.safetensors"))
    assert size < (base / "model.safetensors").stat().st_size * 2  # float32 beside float16
    assert (
        load_file(made / "adapter_model.safetensors").keys()
        == load_file(made / "steps" / "checkpoint-4" / "adapter_model.safetensors").keys()
    )


def test_only_what_the_stage_trains_changes(made: Path, base: Path) -> None:
    before = FlashSlothForConditionalGeneration.from_pretrained(base, dtype="auto").state_dict()
    after = flashsloth.load(made, device="cpu", optimize=False).model.half().state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if name.startswith(FROZEN)]
    for part in ("projector", "spatial_attention_pooling", "query_tokens", "embedded_query", "language_model.layers"):
        assert any(name.startswith(f"model.{part}") for name in changed), part
    inside = [name for name in changed if name.startswith("model.language_model")]
    assert not [name for name in inside if "norm" in name or "embed" in name]


def test_the_report_and_the_optimizer_know_the_adapter(made: Path, base: Path) -> None:
    rows = {row["part"]: row for row in json.loads((made / "parts.json").read_text(encoding="utf-8"))}
    low_rank = sum(t.numel() for name, t in load_file(made / "adapter_model.safetensors").items() if ".lora_" in name)
    assert rows["language_model"]["learning"] == low_rank
    assert rows["language_model"]["moved"] > 0
    in_base = sum(parameter.numel() for parameter in load_base(base).parameters())
    assert sum(row["parameters"] for row in rows.values()) == in_base + low_rank  # what learns in a copy counts once
    assert rows["vision_encoder"]["learning"] == rows["head"]["learning"] == 0
    fast, slow = rows["language_model"]["learning_rates"][0], rows["projector"]["learning_rates"][0]
    assert fast == pytest.approx(3 * slow)


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_a_run_that_was_interrupted_goes_on_exactly(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantize: str
) -> None:
    if quantize == "nf4":
        pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
    change = f"stages.0.adapter.quantize={quantize}"
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    expected = train(recipe_of(whole, base, change))
    with monkeypatch.context() as patched:
        step, calls = StageTrainer.training_step, []

        def stop_in_the_third(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) > 2 * MICRO_BATCHES:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        patched.setattr(StageTrainer, "training_step", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of(halves, base, change))
    found = train(recipe_of(halves, base, change), resume=True)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (expected, found))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_does_not_go_on_over_another_base(base: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(base, tmp_path / "base"))
    folder = train(recipe_of(tmp_path / "run", copied, "stages.0.steps=2"))
    (folder / "adapter_config.json").unlink()  # as if it had been interrupted after its last checkpoint
    load_base(base).bfloat16().save_pretrained(copied)
    with pytest.raises(AdapterError, match=r"checkpoint-2 was learned over .* and would go on over"):
        train(recipe_of(tmp_path / "run", copied, "stages.0.steps=2"), resume=True)


def test_the_run_exports_a_merged_checkpoint_and_later_stages_start_from_it(base: Path, tmp_path: Path) -> None:
    second = "{stage: alignment, steps: 2, warmup: 0, batch_size: 2, data: [{world: 1, count: 4, text: caption}]}"
    recipe = recipe_of(tmp_path, base, "export_dtype=bfloat16")
    file = tmp_path / "recipe.yaml"
    text = file.read_text(encoding="utf-8") + f"  - {second}\nexport_dtype: bfloat16\n"
    file.write_text(text.replace("steps: 4", "steps: 1"), encoding="utf-8")
    recipe = load_recipe(file)
    final = train(recipe)
    exported = FlashSlothForConditionalGeneration.from_pretrained(final, dtype="auto")
    assert exported.dtype == torch.bfloat16
    adapted = flashsloth.load(recipe.output / "0-instruction", device="cpu", optimize=False).model.bfloat16()
    found, expected = exported.state_dict(), adapted.state_dict()
    same = {name for name in found if torch.equal(found[name], expected[name])}
    assert {name for name in found if name.startswith("model.language_model")} <= same
    assert not {name for name in found if name.startswith("model.projector")} <= same
    with pytest.raises(RecipeError, match="finished run"):
        train(recipe)


def test_half_precision_holds_the_frozen_matrices_in_it_and_computes_the_same(
    base: Path, tiny_processor: FlashSlothProcessor
) -> None:
    found = find_base(str(base), "none", TRAINS)
    losses = []
    for half in (False, True):
        torch.manual_seed(0)
        model = load_base(base)
        learner = add_adapter(model, TRAINS, AdapterSettings(rank=2, dropout=0.0), found, half)
        layer = model.model.language_model.layers[0].mlp.fc1
        assert layer.base_layer.weight.dtype == (torch.bfloat16 if half else torch.float32)
        assert layer.lora_A["default"].weight.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(learner(**batch(tiny_processor)).loss)
    assert torch.equal(*losses)


def test_targets_are_names_of_layers_that_are_there(base: Path) -> None:
    model = load_base(base)
    everything = target_names(model, "auto")
    assert len(everything) == 4 * 6
    assert all(name.startswith("model.language_model.layers.") for name in everything)
    assert len(target_names(model, ["q_proj", "v_proj"])) == 4 * 2
    with pytest.raises(AdapterError, match=r"targets names \['qkv'\], which PhiModel lacks: it has \['dense'"):
        target_names(model, ["q_proj", "qkv"])


def test_a_tied_head_cannot_learn_beside_an_adapter(tmp_path: Path) -> None:
    text = {**tiny.TEXT, "model_type": "qwen2", "tie_word_embeddings": True}
    tied = save_base(tmp_path / "tied", text_config=text, tie_word_embeddings=True, lm_head_bias=False)
    with pytest.raises(AdapterError, match="take head out of trains"):
        adapted(tied, trains=(*TRAINS, "head"))


def test_the_head_rests_unless_it_is_asked_for(base: Path, tmp_path: Path) -> None:
    assert "head" not in recipe_of(tmp_path, base).stages[0].trains
    asked = recipe_of(tmp_path, base, "stages.0.trains=[language_model, head]")
    assert asked.stages[0].trains == ("language_model", "head")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("adapter.rank=0", "adapter.rank: found 0, expected a whole number from 1"),
        ("adapter.rank=two", 'adapter.rank: found "two", expected a whole number'),
        ("adapter.alpha=-1", "adapter.alpha: found -1, expected a number above 0 or null"),
        ("adapter.dropout=1", "adapter.dropout: found 1, expected a number of at least 0 and below 1"),
        ("adapter.quantize=int4", 'adapter.quantize: found "int4", expected none or nf4'),
        ("adapter.targets=q_proj", 'adapter.targets: found "q_proj", expected auto or a list'),
        ("adapter.targets=[]", "adapter.targets: found [], expected auto or a list"),
        ("adapter.learning_rate=0", "adapter.learning_rate: found 0, expected a number above 0"),
        ("adapter.ranks=3", "adapter.ranks: unknown key, did you mean rank?"),
        ("adapter=lora", 'adapter: found "lora", expected null or a group of keys: rank, alpha'),
        ("trains=[projector]", "adapter: is for a stage that trains language_model"),
        ("engine={kind: fsdp2}", "engine.kind: found fsdp2, but a stage with an adapter needs ddp"),
        ("patch_loss=0.1", "adapter: does not go with patch_loss"),
    ],
)
def test_mistakes_in_the_recipe_are_named(base: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(tmp_path, base, f"stages.0.{change}")
    assert f"stages.instruction.{message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_needs_a_base_on_disk(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"stages\.instruction\.adapter: needs a model\.path"):
        recipe_of(tmp_path, base, "model={config: {a: 1}, tokenizer: world}")
    file = tmp_path / "recipe.yaml"
    stage = "  - {stage: instruction, data: [{world: 1, count: 1}], adapter: {rank: 2}}\n"
    file.write_text(STAGE.format(output=tmp_path, base=base) + stage, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"stages\.1\.adapter: follows another adapter: merge that one"):
        load_recipe(file)


def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    """DDP over gloo, after a first stage whose checkpoint is the base."""
    first = tiny_runs.with_batch(tiny_runs.ALIGNMENT, steps=1, save_every=1000)
    second = tiny_runs.with_batch(tiny_runs.INSTRUCTION, steps=DISTRIBUTED_STEPS, save_every=1000)
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        path = tiny_runs.write_recipe(folder, first, f"{second}, adapter: {{rank: 2, dropout: 0.0}}")
        still = path.read_text(encoding="utf-8").replace("num_query_tokens", "sap_dropout: 0.0\n    num_query_tokens")
        path.write_text(still, encoding="utf-8")
        run = tiny_runs.start(path, processes=processes)
        assert run.end() == [0] * processes, run.said()
        assert read_adapter(folder / "out" / "1-instruction").base is not None
        found.append([loss for _, loss in tiny_runs.losses(path, "1-instruction")])
    assert len(found[0]) == DISTRIBUTED_STEPS
    assert found[1] == pytest.approx(found[0], rel=1e-5)
