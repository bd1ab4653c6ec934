"""transformers' own test mixins, imported from where `fetch_mixins.py` put them.

Their source distribution leaves out some modules that its tests import. What stands in for them is below: an empty
mixin where there are tests of its own (which then do not run), and pictures drawn here for those that they take from
the Hub.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import fetch_mixins
import pytest
from PIL import Image

_EMPTY_MIXINS = {
    "exporters.test_export": "ExportTesterMixin",
    "generation.test_utils": "GenerationTesterMixin",
}
"""Module that may be missing -> the class that is imported from it."""
_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")


def mixin_module(name: str) -> ModuleType:
    """One of transformers' test modules, by its file's name; skips the calling module where it was not fetched."""
    if not fetch_mixins.are_there():
        reason = "transformers' own tests are not here: run `make test-citizenship`"
        if os.environ.get("CI"):
            raise RuntimeError(reason)
        pytest.skip(reason, allow_module_level=True)
    folder = str(fetch_mixins.mixins_folder())
    if folder not in sys.path:
        sys.path.append(folder)
        _fill_in()
    return import_module(f"{fetch_mixins.PACKAGE}.{name}")


def _fill_in() -> None:
    """Make modules for those that the source distribution leaves out."""
    for name, mixin in _EMPTY_MIXINS.items():
        full_name = f"{fetch_mixins.PACKAGE}.{name}"
        parent = full_name.rpartition(".")[0]
        if find_spec(parent) is None:
            sys.modules[parent] = ModuleType(parent)
        if full_name not in sys.modules:
            module = ModuleType(full_name)
            setattr(module, mixin, type(mixin, (), {}))
            sys.modules[full_name] = module
    pictures = ModuleType("fetch_hub_objects_for_ci")
    pictures.url_to_local_path = _drawn_picture  # type: ignore[attr-defined]
    sys.modules.setdefault(pictures.__name__, pictures)


def _drawn_picture(url: str) -> str:
    """A file with a picture for the address of one; other addresses as they are."""
    name = url.rpartition("/")[2]
    if not name.endswith(_PICTURE_ENDINGS):
        return url
    path = Path(tempfile.gettempdir()) / f"flashsloth-drawn-{os.getpid()}-{name}"
    if not path.exists():
        Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(path)
    return str(path)
