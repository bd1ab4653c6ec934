"""An HD model that learns from whole views and from all views, in the same steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import TinyModelMaker

from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.data import DataError
from flashsloth.training.data.sample import Sample
from flashsloth.training.dataloader import ConversationCollator
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.run import train
from flashsloth.training.stages import STAGES
from flashsloth.world import World, export_split

RESOLUTIONS = ["standard", "hd", None, "standard"]
RECIPE = """
name: both
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
    image_grid: GRID
stages:
  - stage: instruction_hd
    steps: 2
    batch_size: 4
    workers: 0
    template: chat
    precision: float32
    attention: sdpa
    data:
      - {json: FOLDER/conversations.json, resolution: standard}
      - {json: FOLDER/conversations.json, resolution: hd}
"""


@pytest.fixture
def hd_processor(tiny_tokenizer: Any) -> FlashSlothProcessor:
    return tiny.make_processor(tiny_tokenizer, tiny.make_config(tiny_tokenizer, image_grid=2))


def samples() -> list[Sample]:
    chats = [[tiny.user(f"What is {number}?", tiny.picture(number)), tiny.assistant("a dog")] for number in range(4)]
    return [Sample(chat, resolution=one) for chat, one in zip(chats, RESOLUTIONS, strict=True)]


@pytest.mark.parametrize("packing", [False, True])
def test_a_batch_of_both_is_as_the_processor_makes_it(
    hd_processor: FlashSlothProcessor, make_tiny_model: TinyModelMaker, packing: bool
) -> None:
    stage = STAGES["instruction_hd"].model_copy(update={"template": "chat"})
    model = make_tiny_model("sdpa", image_grid=2)
    batch = ConversationCollator(hd_processor, stage, packing=packing)(samples())
    assert sorted(batch["image_views"].tolist()) == [1, 1, 5, 5]
    chats = [sample.messages for sample in samples()]
    shown = ["hd" if one is None else one for one in RESOLUTIONS]
    expected = tiny.encode(hd_processor, chats, resolution=shown, return_labels=True)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).loss, model(**expected).loss, rtol=1e-4, atol=1e-4)


def test_of_one_resolution_there_is_nothing_more(hd_processor: FlashSlothProcessor) -> None:
    stage = STAGES["instruction_hd"].model_copy(update={"template": "chat"})
    batch = ConversationCollator(hd_processor, stage)(samples()[:1])
    assert batch["pixel_values"].shape[1] == 1
    assert "image_views" not in batch


def recipe_of(folder: Path, grid: int, **changes: str) -> Any:
    export_split(World(seed=1, level=1), folder / "world", 4)
    text = RECIPE.replace("GRID", str(grid)).replace("FOLDER", str(folder / "world"))
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.yaml", [f"output={folder / 'run'}"])


def test_a_run_on_both(tmp_path: Path) -> None:
    assert (train(recipe_of(tmp_path, grid=2)) / "model.safetensors").is_file()


def test_a_model_of_one_view_has_no_hd(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="the data of stage instruction_hd: resolution is 'hd', but this model sees one"
    ):
        train(recipe_of(tmp_path, grid=1))


def test_what_knows_all_views_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="goes neither with feature_cache nor with patch_loss"):
        recipe_of(tmp_path, grid=2, steps="feature_cache: {folder: x, max_gb: 1}\n    trains: [sap]\n    steps")
