"""An experiment at a tiny scale, from its file to its table; and the connectors that it compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from flashsloth.ablation.report import read_rows, write_report
from flashsloth.ablation.run import cost_of, run_experiment
from flashsloth.ablation.variants import (
    POOLINGS,
    AveragePooling,
    Experiment,
    ExperimentError,
    PixelShuffle,
    Variant,
    load_experiment,
    make_variant,
)
from flashsloth.cli.app import main
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.training.recipe import ModelSource, RecipeError
from flashsloth.world import World

CLAIM = Path(__file__).parents[2] / "recipes" / "experiments" / "claim.yaml"
VISION = {
    "model_type": "siglip_vision_model", "image_size": 24, "patch_size": 4, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
TEXT = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "tie_word_embeddings": True,
}  # fmt: skip
CONFIG = {
    "vision_config": VISION, "text_config": TEXT, "vision_feature_layer": -1, "num_query_tokens": 2, "query_size": 8,
    "embq_layer": 1, "embq_num_heads": 2, "sap_dropout": 0.0, "lm_head_bias": False, "tie_word_embeddings": True,
}  # fmt: skip
MODEL = {"tokenizer": "world", "image_aspect_ratio": "pad", "config": CONFIG}
GRID = 6


def small(**changes: Any) -> dict[str, Any]:
    """An experiment of two variants, two steps and two seeds."""
    stage = {"steps": 2, "batch_size": 2, "workers": 0, "precision": "float32"}
    data = {"world": 0, "count": 4, "most_turns": 2}
    held_out = {"world": 0, "count": 2, "split": "test", "independent": True}
    return {
        "name": "small",
        "seeds": [1, 2],
        "model": MODEL,
        "encoder": [{"stage": "encoder", "data": [{"world": 0, "count": 4}], **stage}],
        "stages": [{"stage": "instruction", "template": "chat", "data": [data], "eval_data": [held_out], **stage}],
        "variants": [{"name": "SAP + EmbQ"}, {"name": "average", "pooling": "average", "embq": False}],
        **changes,
    }


def written(folder: Path, tree: dict[str, Any]) -> Path:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"output": str(folder / "run"), **tree}), encoding="utf-8")
    return file


def test_from_the_file_to_the_table(tmp_path: Path) -> None:
    experiment = load_experiment(written(tmp_path, small()))
    told: list[str] = []
    run_experiment(experiment, told.append)
    assert len(told) == 4
    rows = read_rows(experiment)
    assert [row.variant.name for row in rows] == ["SAP + EmbQ", "average"]
    assert {"shape", "color", "all"} <= set(rows[0].shares)
    assert all(row.seeds == 2 and 0 <= row.shares["all"].mean <= 1 for row in rows)
    assert rows[0].cost["visual_tokens"] == 4
    assert not list(experiment.output.glob("*-[12]/**/*.safetensors"))

    report = write_report(experiment, rows, tmp_path / "docs")
    text = report.read_text(encoding="utf-8")
    assert "| SAP + EmbQ | 4 | 2 | 1 |" in text
    assert "| average | 4 | 2 | – |" in text
    assert (tmp_path / "docs" / "small-all.png").stat().st_size > 0
    report.write_text(f"before\n{text}\nafter", encoding="utf-8")
    again = write_report(experiment, rows, tmp_path / "docs").read_text(encoding="utf-8")
    assert again.startswith("before\n")
    assert again.endswith("\nafter")
    report.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_report(experiment, rows, tmp_path / "docs")

    result = experiment.run_folder(experiment.variants[1], 2) / "result.json"
    before = json.loads(result.read_text(encoding="utf-8"))["shares"]
    result.unlink()
    assert main(["ablation", str(tmp_path / "small.yaml")]) == 0  # the others are done
    assert (experiment.output / "small.md").is_file()
    assert json.loads(result.read_text(encoding="utf-8"))["shares"] == before


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("embq", [True, False])
def test_every_connector_answers_and_learns(pooling: str, embq: bool) -> None:
    size = {"none": 1}.get(pooling, 3)
    model, processor = make_variant(
        ModelSource(**MODEL), Variant(name="v", pooling=pooling, pool_size=size, embq=embq), seed=1
    )
    assert model.config.num_image_tokens == (GRID // size) ** 2
    sample = World(level=0).sample(1)
    with torch.no_grad():
        answer = FlashSloth(model, processor).answer(sample.image, "What is this?", max_new_tokens=2)
    assert isinstance(answer, str)
    pixels = torch.rand(1, 1, 3, 24, 24)
    tokens = model.model.get_image_features(pixels).pooler_output
    assert tokens.shape == (1, model.config.num_image_tokens, 16)
    tokens.square().sum().backward()
    pooled = list(model.model.spatial_attention_pooling.parameters())
    assert all(parameter.grad is not None for parameter in pooled)
    assert bool(list(model.model.embedded_query.parameters())) is embq


def test_windows_are_pooled_where_they_are() -> None:
    model, _ = make_variant(ModelSource(**MODEL), Variant(name="v"), seed=1)
    grid = torch.arange(GRID * GRID, dtype=torch.float32).view(GRID, GRID)
    features = grid.view(1, -1, 1).expand(1, -1, 2)  # [1, P, 2]
    expected = grid.view(2, 3, 2, 3).mean(dim=(1, 3)).flatten()
    assert torch.equal(AveragePooling(model.config)(features)[0, :, 0], expected)
    shuffled = PixelShuffle(model.config)(features)
    assert shuffled.shape == (1, 4, 18)
    assert shuffled[0, 1, :9].tolist() == grid[:3, 3:].flatten().tolist()


@pytest.mark.parametrize("pooling", ["sap", "resampler"])
def test_without_embq_less_is_computed(pooling: str) -> None:
    source, device = ModelSource(**MODEL), torch.device("cpu")
    costs = [cost_of(source, Variant(name="v", pooling=pooling, embq=embq), device) for embq in (True, False)]
    assert costs[0].flops > costs[1].flops > 0
    assert costs[0].visual_tokens == costs[1].visual_tokens == 4


def test_the_same_seed_draws_the_same_model_and_the_encoder_is_shared(tmp_path: Path) -> None:
    taught, processor = make_variant(ModelSource(**MODEL), Variant(name="v"), seed=5)
    taught.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    first, second = (
        make_variant(ModelSource(**MODEL), Variant(name="v"), seed=6, encoder=tmp_path)[0] for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    pairs = zip(first.model.vision_tower.parameters(), taught.model.vision_tower.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.model.projector.linear_1.weight, taught.model.projector.linear_1.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sorts": 1}, "sorts: unknown key, expected one of name, output, seeds"),
        ({"sed": 1}, "sed: unknown key, did you mean seeds"),
        ({"seeds": []}, r"seeds: found \[\], expected a list, each item a whole number of at least 0"),
        ({"stages": [{"stage": "instruction", "data": [{"world": 0, "count": 1}]}]}, r"stages\.0\.eval_data: missing"),
        ({"processes": 0}, "processes: found 0, expected a whole number from 1"),
        ({"model": {"path": "x"}}, "model: needs a config"),
        ({"variants": []}, r"variants: found \[\], expected a list"),
        ({"variants": [{"pooling": "sap"}]}, r"variants\.0\.name: missing"),
        ({"variants": [{"name": "a", "pooling": "max"}]}, r'pooling: found "max", expected sap, average'),
        ({"variants": [{"name": "a", "pooling": "none"}]}, "all visual tokens are"),
        ({"variants": [{"name": "a", "pool_size": "big"}]}, r'variants\.0\.pool_size: found "big"'),
        ({"variants": [{"name": "A b"}, {"name": "a-b"}]}, r"variants\.1\.name: a variant before is called 'a-b'"),
        ({"variants": [{"name": "?"}]}, r"variants\.0\.name: found \"\?\", which holds no letter"),
        (
            {"encoder": [{"stage": "encoder", "data": [{"world": 9}]}]},
            r"encoder\.data\.0\.world: found 9",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ExperimentError, RecipeError), match=message):
        load_experiment(written(tmp_path, small(**changes)))


def test_the_claims_file_is_right(tmp_path: Path) -> None:
    tree = yaml.safe_load(CLAIM.read_text(encoding="utf-8"))
    experiment: Experiment = load_experiment(written(tmp_path, {**tree, "output": str(tmp_path / "claim")}))
    assert len(experiment.seeds) == 3
    experiment.encoder_recipe()
    for variant in experiment.variants:
        recipe = experiment.recipe(variant, 1)
        assert recipe.model.config is not None
        assert recipe.model.config["pool_size"] == variant.pool_size
