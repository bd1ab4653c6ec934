"""transformers' own tests of a model, on FlashSloth: standard, HD, and with another language model.

What they ask that cannot apply here stands in `cannot_apply.py`.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import tiny
import torch
from mixins import mixin_module

from flashsloth.model.configuration_flashsloth import HD_GRID, FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration, FlashSlothModel

common = mixin_module("test_modeling_common")
IMAGE_ID, QUERY_ID, ANCHOR_ID = 1, 2, 3
"""Small, because the tests of smaller vocabularies cut the large ones off."""
LAYERS = 2
BATCH = 7
"""Rows that some tests want: where there are fewer, they add some of random ids."""
QWEN2 = {**tiny.TEXT, "model_type": "qwen2", "num_hidden_layers": LAYERS, "num_key_value_heads": 2}


class ModelUnderTest:
    """What the mixin asks about the model under test: its configuration, inputs, and their sizes."""

    is_training = True

    def __init__(self, **changes: Any) -> None:
        self.tokenizer = tiny.make_tokenizer()
        self.changes = changes
        config = self.get_config()
        self.hidden_size = config.text_config.hidden_size
        self.num_hidden_layers = config.text_config.num_hidden_layers
        self.num_attention_heads = config.text_config.num_attention_heads
        self.vision_config = config.vision_tower_config().to_dict()  # the layers that are run
        self.text_config = config.text_config.to_dict()
        self.batch_size, self.seq_length = self.prepare_config_and_inputs_for_common()[1]["input_ids"].shape

    def get_config(self) -> FlashSlothConfig:
        fields: dict[str, Any] = {
            "vision_config": {**tiny.VISION, "num_hidden_layers": LAYERS},
            "text_config": {**tiny.TEXT, "num_hidden_layers": LAYERS},
            "image_token_id": IMAGE_ID,
            "query_token_id": QUERY_ID,
            "anchor_token_id": ANCHOR_ID,
            "embq_layer": 1,
        }
        return tiny.make_config(self.tokenizer, **{**fields, **self.changes})

    def prepare_config_and_inputs_for_common(self) -> tuple[FlashSlothConfig, dict[str, torch.Tensor]]:
        """As the processor makes them, for questions of one length, each about a picture."""
        config = self.get_config()
        processor = tiny.make_processor(self.tokenizer, config)
        inputs = tiny.encode(processor, [[tiny.user("What?", tiny.picture(seed))] for seed in range(BATCH)])
        for token, token_id in ((processor.image_token_id, IMAGE_ID), (processor.query_token_id, QUERY_ID)):
            inputs["input_ids"][inputs["input_ids"] == token] = token_id
        return config, inputs


def _plain_ids(draw: Callable[..., torch.Tensor], *args: Any, **options: Any) -> torch.Tensor:
    """Random ids, none of them a placeholder: one would stand for a picture that was not given."""
    ids = draw(*args, **options)
    return torch.where((ids == IMAGE_ID) | (ids == QUERY_ID), ANCHOR_ID, ids)


class _ModelTest(common.ModelTesterMixin):  # type: ignore[name-defined, misc]
    all_model_classes = (FlashSlothModel, FlashSlothForConditionalGeneration)
    additional_model_inputs = ("pixel_values", "image_index", "query_turn", "question_turn")
    test_can_init_all_missing_weights_before_2023 = True  # where it cannot read off a file how old a model is
    _is_composite = True
    changes: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.model_tester = ModelUnderTest(**self.changes)
        without_placeholders = mock.patch.object(common, "ids_tensor", partial(_plain_ids, common.ids_tensor))
        without_placeholders.start()
        self.addCleanup(without_placeholders.stop)


class StandardTest(_ModelTest, unittest.TestCase):
    pass


class HdTest(_ModelTest, unittest.TestCase):
    changes: ClassVar[dict[str, Any]] = {"image_grid": HD_GRID}


class Qwen2Test(_ModelTest, unittest.TestCase):
    changes: ClassVar[dict[str, Any]] = {"text_config": QWEN2, "lm_head_bias": False}
