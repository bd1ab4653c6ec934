"""A name becomes a configuration, and nothing is loaded for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from forked import python
from small_hub import small_hub
from talkative import save_talkative

from flashsloth.checkpoint.convert import convert
from flashsloth.errors import BenchmarkError
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading import CheckpointError, published_config
from flashsloth.planning.model_shape import find_model

PUBLISHED_FOLDER = Path(__file__).parents[1] / "parity" / "tiny"
PUBLISHED_IDS = {"query_token_id": 500, "anchor_token_id": 13}
"""What that folder's files do not tell."""
FIND = """
import importlib, json, sys
from huggingface_hub import constants, hf_api
hf_api.api.endpoint = importlib.reload(constants).ENDPOINT  # where its hub is, read when it was imported, is read again
from flashsloth.planning.model_shape import find_model
print(json.dumps(find_model(sys.argv[1], query_token_id=500, anchor_token_id=13).config.to_dict()))
"""


def test_the_published_sizes() -> None:
    standard, hd = find_model("flashsloth"), find_model("flashsloth-hd")
    assert standard.config.to_dict() == FlashSlothConfig().to_dict()
    assert (standard.config.num_image_tokens, hd.config.num_image_tokens) == (81, 405)
    assert standard.stored == hd.stored == torch.float16
    assert find_model("flashsloth", pool_size=9).config.num_image_tokens == 9


def test_nothing_is_the_small_model() -> None:
    found = find_model(None)
    assert (found.name, found.stored, found.config.text_config.model_type) == ("nano", torch.float16, "llama")


def test_a_folder_of_ours_needs_no_weights(tmp_path: Path) -> None:
    folder = save_talkative(tmp_path)
    (folder / "model.safetensors").unlink()
    found = find_model(str(folder))
    assert found.config.num_patches == 36
    assert (found.name, found.stored) == (str(folder), torch.float32)


def test_a_folder_whose_weights_have_other_sizes_is_refused(tmp_path: Path) -> None:
    folder = save_talkative(tmp_path)
    file = folder / "config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    said["text_config"]["num_hidden_layers"] = 40
    file.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(CheckpointError, match="num_hidden_layers is 40, but the weights have"):
        find_model(str(folder))


def test_an_adapter_is_planned_as_its_base(tmp_path: Path) -> None:
    base, adapter = save_talkative(tmp_path), tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(
        json.dumps({**settings, "base_model_name_or_path": str(base)}), encoding="utf-8"
    )
    found = find_model(str(adapter))
    assert (found.name, found.config.to_dict()) == (str(adapter), find_model(str(base)).config.to_dict())
    with pytest.raises(CheckpointError, match="is an adapter: `flashsloth merge` makes"):
        convert(adapter, tmp_path / "out")


def test_a_published_folder_is_read_by_its_headers() -> None:
    found = find_model(str(PUBLISHED_FOLDER), **PUBLISHED_IDS)
    assert found.config.to_dict() == published_config(PUBLISHED_FOLDER, **PUBLISHED_IDS).to_dict()


def test_published_weights_on_the_hub_are_not_fetched(tmp_path: Path) -> None:
    """In a process of its own, which has another hub."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "vision_config.json", "model.safetensors"):
        (folder / name).write_bytes((PUBLISHED_FOLDER / name).read_bytes())
    with small_hub(folder, "owner/tiny") as hub:
        settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [*python(), "-c", FIND, "owner/tiny"],
            env={**os.environ, **settings, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        sent = dict(hub.sent)
    assert done.returncode == 0, done.stderr
    expected = published_config(PUBLISHED_FOLDER, **PUBLISHED_IDS).to_dict()
    found = json.loads(done.stdout)
    assert {key: found[key] for key in ("vision_config", "query_size", "num_query_tokens")} == {
        key: json.loads(json.dumps(expected[key])) for key in ("vision_config", "query_size", "num_query_tokens")
    }
    assert sent["config.json"] > 0
    assert 0 < sent["model.safetensors"] < 0.1 * (folder / "model.safetensors").stat().st_size


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no folder '/no/where'; expected one, .* or flashsloth, flashsloth-hd"):
        find_model("/no/where")
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        find_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(BenchmarkError, match="holds a model of type 'bert', expected a FlashSloth"):
        find_model(str(tmp_path))
    with pytest.raises(CheckpointError, match="is a file, expected the folder it lies in"):
        find_model(str(tmp_path / "config.json"))
