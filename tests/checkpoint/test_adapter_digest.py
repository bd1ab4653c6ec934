"""The same weights have the same digest, whatever files they lie in; others have another."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from fine_tuned import load_base, save_base

from flashsloth.checkpoint.adapter import base_digest
from flashsloth.checkpoint.convert import convert

PUBLISHED_SIZES = {"num_query_tokens": 9, "embq_layer": 7, "anchor_token_id": 764}
TEXT = {**tiny.TEXT, "num_hidden_layers": 8, "vocab_size": 800}


def test_files_and_layouts_do_not_matter(tmp_path: Path) -> None:
    whole = save_base(tmp_path / "whole", text_config=TEXT, **PUBLISHED_SIZES)
    sharded = convert(whole, tmp_path / "sharded", max_shard_size=200_000)
    published = convert(whole, tmp_path / "published", to="published")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert base_digest(whole) == base_digest(sharded) == base_digest(published)


@pytest.mark.parametrize("change", ["a number", "the precision"])
def test_weights_matter(base: Path, tmp_path: Path, change: str) -> None:
    model = load_base(base)
    if change == "a number":
        model = model.half()
        with torch.no_grad():
            weight = model.model.language_model.layers[1].mlp.fc1.weight
            weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0, dtype=weight.dtype))
    model.save_pretrained(tmp_path / "changed")
    assert base_digest(tmp_path / "changed") != base_digest(base)
    load_base(base).half().save_pretrained(tmp_path / "same")
    assert base_digest(tmp_path / "same") == base_digest(base)
