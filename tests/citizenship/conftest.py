"""What transformers' own tests expect of the test runner."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import fetch_mixins
import pytest
from cannot_apply import why_not

# Imported by their full names: older versions of transformers ask for torchvision at the shorter ones.
modeling_auto = import_module("transformers.models.auto.modeling_auto")
image_processing_auto = import_module("transformers.models.auto.image_processing_auto")

_TABLES = (
    (modeling_auto.MODEL_MAPPING_NAMES, "FlashSlothModel"),
    (modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, "FlashSlothForConditionalGeneration"),
    (image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES, {"pil": "FlashSlothImageProcessorPil"}),
)
"""transformers' tables of its own classes, by which its tests tell a base model from one with a head."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers that their tests carry."""
    for name in sorted(_markers(fetch_mixins.mixins_folder() / fetch_mixins.PACKAGE)):
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect those tests to fail that cannot apply."""
    for item in items:
        owner = getattr(item, "cls", None)
        if owner is not None and (reason := why_not(f"{owner.__name__}.{item.name}")):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="module", autouse=True)
def _listed_as_transformers_own() -> Iterator[None]:
    """Stand in the tables that its tests look names up in, as a model that came with transformers would."""
    with pytest.MonkeyPatch.context() as patch:
        for table, name in _TABLES:
            patch.setitem(table, "flashsloth", name)
        yield


def _markers(package: Path) -> set[str]:
    found = {"flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"}
    for path in package.glob("*.py"):
        found |= set(re.findall(r"\bmark\.([a-z_0-9]+)", path.read_text(encoding="utf-8")))
    return found - {"parametrize", "skip", "skipif", "xfail", "usefixtures"}
