"""Whole runs, tiny: every stage's objective, what is left behind, and going on where one stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from flashsloth.checkpoint.adapter import AdapterError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training import trainer
from flashsloth.training.data import DataError
from flashsloth.training.init_model import world_tokenizer
from flashsloth.training.parallelism import ParallelismError
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.run import RunExistsError, train

RECIPE = """
name: tiny
output: {output}
seed: 3
export_dtype: float16
model:
  tokenizer: world
  image_aspect_ratio: pad
  config:
    vision_config: {{model_type: siglip_vision_model, image_size: 48, patch_size: 8, hidden_size: 16,
                     intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}}
    text_config: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2,
                   num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 1024,
                   tie_word_embeddings: true}}
    vision_feature_layer: -1
    num_query_tokens: 2
    query_size: 8
    embq_layer: 1
    embq_num_heads: 2
    lm_head_bias: false
    tie_word_embeddings: true
stages:
  - {{stage: encoder, steps: 2, batch_size: 4, workers: 0, optimizer: muon, eval_every: 2,
      data: [{{world: 1, count: 8}}], eval_data: [{{world: 1, count: 4, split: test}}]}}
  - {{stage: alignment, steps: 2, batch_size: 4, micro_batch_size: 2, workers: 0, precision: bf16,
      data: [{{world: 1, count: 8, text: caption}}]}}
  - {{stage: instruction, steps: 3, batch_size: 4, workers: 0, template: chat, learning_rate: 1e-2, attention: eager,
      shuffle: false, eval_every: 3, save_every: 2,
      data: [{{world: 3, count: 8, independent: true}}, {{world: 3, count: 8}}],
      eval_data: [{{world: 3, count: 4, split: test}}]}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE.format(output=folder / "out"), encoding="utf-8")
    assert train(load_recipe(recipe)) == folder / "out" / "final"
    return folder


def test_every_stage_leaves_a_whole_checkpoint_a_log_and_a_curve(made: Path) -> None:
    for name in ("0-encoder", "1-alignment", "2-instruction"):
        stage = made / "out" / name
        assert json.loads((stage / "log.json").read_text(encoding="utf-8"))
        with Image.open(stage / "loss.png") as curve:
            assert curve.width > 500
        FlashSlothForConditionalGeneration.from_pretrained(stage)
        assert isinstance(FlashSlothProcessor.from_pretrained(stage), FlashSlothProcessor)


def test_only_what_a_stage_trains_changes(made: Path) -> None:
    encoder, aligned, instructed = (
        FlashSlothForConditionalGeneration.from_pretrained(made / "out" / name).state_dict()
        for name in ("0-encoder", "1-alignment", "2-instruction")
    )
    changed = {name for name in encoder if not torch.equal(encoder[name], aligned[name])}
    assert changed
    assert all(name.startswith(("model.projector", "model.spatial_attention_pooling")) for name in changed)
    changed = {name for name in aligned if not torch.equal(aligned[name], instructed[name])}
    assert any(name.startswith("model.embedded_query") for name in changed)
    assert not any(name.startswith("model.vision_tower") for name in changed)


def test_held_out_answers_are_scored_by_kind(made: Path) -> None:
    log = json.loads((made / "out" / "2-instruction" / "log.json").read_text(encoding="utf-8"))
    scores = next(entry for entry in log if "eval_right" in entry)
    assert 0 <= scores["eval_right"] <= 1
    assert any(name.startswith("eval_right_") for name in scores)


def test_the_last_folder_holds_the_exported_precision(made: Path) -> None:
    final = FlashSlothForConditionalGeneration.from_pretrained(made / "out" / "final", dtype="auto")
    assert final.dtype == torch.float16


def test_a_finished_run_is_not_run_again(made: Path) -> None:
    weights = made / "out" / "2-instruction" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    with pytest.raises(RunExistsError, match="holds a finished run: use it as it is"):
        train(load_recipe(made / "tiny.yaml"))
    assert train(load_recipe(made / "tiny.yaml"), resume=True) == made / "out" / "final"
    assert weights.stat().st_mtime_ns == before


def test_what_a_later_stage_needs_is_asked_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(output=tmp_path / "out"), encoding="utf-8")
    monkeypatch.setattr("flashsloth.training.distributed.count", lambda: 3)
    monkeypatch.setattr("flashsloth.training.distributed.start", lambda: None)
    with pytest.raises(RecipeError, match="stage encoder: batch_size 4 is not a multiple of micro"):
        train(load_recipe(recipe))
    zero = ["stages.0.batch_size=3", "stages.1.batch_size=6", "stages.2.batch_size=3", "stages.2.engine={kind: zero2}"]
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(ParallelismError, match="engine zero2 needs DeepSpeed"):
        train(load_recipe(recipe, zero))
    monkeypatch.undo()
    monkeypatch.setitem(trainer._FLASH, "flash_attention_3", lambda: False)
    with pytest.raises(RecipeError, match="stage instruction: attention is flash_attention_3, whose package"):
        train(load_recipe(recipe, ["stages.2.attention=flash_attention_3"]))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    adapted = ["stages.2.adapter={quantize: nf4}", "model={path: somewhere}"]
    with pytest.raises(AdapterError, match="needs bitsandbytes"):
        train(load_recipe(recipe, adapted))
    assert not (tmp_path / "out").exists()


def test_data_of_a_later_stage_is_opened_before_the_first(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('[{"id": "a"', encoding="utf-8")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(output=tmp_path / "out"), encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.json"):
        train(load_recipe(recipe, [f"stages.2.data=[{{json: {tmp_path}/broken.json}}]"]))
    assert not (tmp_path / "out" / "run.json").exists()


def test_words_of_the_world_are_one_token_and_everything_else_is_spelled() -> None:
    tokenizer = world_tokenizer()
    assert tokenizer.tokenize(" circle") == ["Ġcircle"]
    assert tokenizer.tokenize(" Thop 12") == ["Ġ", "T", "h", "o", "p", "Ġ1", "2"]
    for text in ("What is it?", "  two  spaces\tand\nlines ", "naïve 漢字 🦥", "ASSISTANT: USER:"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
