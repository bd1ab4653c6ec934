"""transformers' own tests of an image processor, on FlashSloth's: standard and HD.

What they ask that cannot apply here stands in `cannot_apply.py`.
"""

from __future__ import annotations

import unittest
from typing import Any

import tiny
from mixins import mixin_module

from flashsloth.model.configuration_flashsloth import HD_GRID, STANDARD_GRID
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

common = mixin_module("test_image_processing_common")
SIDE = {"height": tiny.IMAGE_SIZE, "width": tiny.IMAGE_SIZE}


class _ImageProcessorUnderTest(common.ImageProcessingTester):  # type: ignore[name-defined, misc]
    def __init__(self, parent: Any, image_grid: int = STANDARD_GRID) -> None:
        super().__init__(parent, size=SIDE, image_grid=image_grid)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"pil": FlashSlothImageProcessorPil}

    def expected_output_image_shape(self, images: list[Any]) -> tuple[int, ...]:
        return (1 if self.image_grid == STANDARD_GRID else 1 + self.image_grid**2, 3, *SIDE.values())


class StandardTest(common.ImageProcessingTestMixin, unittest.TestCase):  # type: ignore[name-defined, misc]
    image_processor_tester_class = _ImageProcessorUnderTest


class HdTest(common.ImageProcessingTestMixin, unittest.TestCase):  # type: ignore[name-defined, misc]
    @staticmethod
    def image_processor_tester_class(parent: Any) -> _ImageProcessorUnderTest:
        return _ImageProcessorUnderTest(parent, HD_GRID)
