"""transformers' own tests of a processor, on FlashSloth's.

What they ask that cannot apply here stands in `cannot_apply.py`.
"""

from __future__ import annotations

import unittest
from typing import Any

import tiny
from mixins import mixin_module

from flashsloth.model.chat_template import chat_template
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

common = mixin_module("test_processing_common")


class ProcessorTest(common.ProcessorTesterMixin, unittest.TestCase):  # type: ignore[name-defined, misc]
    processor_class = FlashSlothProcessor

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return tiny.make_tokenizer()

    @classmethod
    def _setup_image_processor(cls) -> FlashSlothImageProcessorPil:
        return FlashSlothImageProcessorPil(size={"height": tiny.IMAGE_SIZE, "width": tiny.IMAGE_SIZE})

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        config = tiny.make_config(tiny.make_tokenizer())
        return {
            "chat_template": chat_template(tiny.SYSTEM_PROMPT),
            "num_image_tokens": config.num_image_tokens,
            "num_query_tokens": config.num_query_tokens,
        }
