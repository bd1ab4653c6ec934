"""Where a run starts: what a recipe's model must say."""

from __future__ import annotations

from typing import Any

import pytest

from flashsloth.training.init_model import start_model
from flashsloth.training.recipe import ModelSource, RecipeError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_siz": 8}, "model.config.query_siz: unknown key, did you mean query_size?"),
        ({"brain": 8}, "model.config.brain: unknown key, expected one of"),
        ({"text_config": 5}, "model.config.text_config: found 5, expected a group of keys"),
        (
            {"text_config": {"model_type": "llama", "hiden_size": 8}},
            "model.config.text_config.hiden_size: unknown key, did you mean hidden_size?",
        ),
        ({"query_siz": 8, "vision_config": None}, "the recipe has 2 mistakes"),
        ({"embq_layer": 99}, "model.config: embq_layer 99 is outside"),
    ],
)
def test_keys_that_would_have_no_effect_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        start_model(ModelSource(config=fields, tokenizer="world"), "sdpa")
    assert message in str(refused.value)


def test_a_tokenizer_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError("We couldn't\nconnect")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", absent)
    with pytest.raises(
        RecipeError, match=r"model\.tokenizer: found 'no/where', which cannot be loaded, .*couldn't connect"
    ):
        start_model(ModelSource(config={}, tokenizer="no/where"), "sdpa")
