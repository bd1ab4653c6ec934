"""FlashSloth's place in transformers' Auto classes, taken without importing them.

In: nothing. Out: after `import flashsloth`, `AutoConfig`, `AutoModel`, `AutoModelForImageTextToText`,
`AutoModelForMultimodalLM`, `AutoProcessor` and `AutoImageProcessor` know FlashSloth, and so does `pipeline`.

Importing transformers' Auto classes takes seconds, so nothing is imported for their sake. An Auto class that is there
already learns of FlashSloth at once; one that is not learns of it when somebody first imports it. A finder in
`sys.meta_path` sees to that: it notices when one of the modules in the table below has been executed, and then fills
every row that can be filled. A row waits until neither of its two modules is half imported, because each may be what
pulls in the other: `flashsloth.model.modeling_flashsloth` imports `AutoModel`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

_AUTO = "transformers.models.auto"
_OURS = "flashsloth.model"
_MODEL_CLASSES = {
    "AutoModel": "FlashSlothModel",
    "AutoModelForImageTextToText": "FlashSlothForConditionalGeneration",
    "AutoModelForMultimodalLM": "FlashSlothForConditionalGeneration",
}
"""Auto class -> ours."""


def _register_config(auto: ModuleType, ours: ModuleType) -> None:
    auto.AutoConfig.register(ours.FlashSlothConfig.model_type, ours.FlashSlothConfig, exist_ok=True)


def _register_models(auto: ModuleType, ours: ModuleType) -> None:
    for auto_name, our_name in _MODEL_CLASSES.items():
        getattr(auto, auto_name).register(_config_class(), getattr(ours, our_name), exist_ok=True)


def _register_processor(auto: ModuleType, ours: ModuleType) -> None:
    auto.AutoProcessor.register(_config_class(), ours.FlashSlothProcessor, exist_ok=True)


def _register_image_processor(auto: ModuleType, ours: ModuleType) -> None:
    backends = {"pil": ours.FlashSlothImageProcessorPil}
    auto.AutoImageProcessor.register(_config_class(), image_processor_classes=backends, exist_ok=True)


class _Row(NamedTuple):
    """One registration: transformers' module, our module, and what is done with both."""

    auto: str
    ours: str
    register: Callable[[ModuleType, ModuleType], None]


_TABLE = (
    _Row(f"{_AUTO}.configuration_auto", f"{_OURS}.configuration_flashsloth", _register_config),
    _Row(f"{_AUTO}.modeling_auto", f"{_OURS}.modeling_flashsloth", _register_models),
    _Row(f"{_AUTO}.processing_auto", f"{_OURS}.processing_flashsloth", _register_processor),
    _Row(f"{_AUTO}.image_processing_auto", f"{_OURS}.image_processing_flashsloth", _register_image_processor),
)


def register() -> None:
    """Register with every Auto class that is imported, now, and with the others when they are. Idempotent."""
    if not any(isinstance(finder, _AutoFinder) for finder in sys.meta_path):
        finder = _AutoFinder()
        sys.meta_path.insert(0, finder)
        finder.fill_rows()


class _AutoFinder(MetaPathFinder):
    """Finds the table's modules where Python would, and notices when they have been executed."""

    def __init__(self) -> None:
        self._names = {name for row in _TABLE for name in (row.auto, row.ours)}
        self._executed = {name for name in self._names if _is_whole(sys.modules.get(name))}
        self._waiting = list(_TABLE)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _NoticingLoader(spec.loader, self._notice)
        return spec

    def _notice(self, name: str) -> None:
        self._executed.add(name)
        self.fill_rows()

    def fill_rows(self) -> None:
        """Fill every waiting row whose Auto module has been executed and whose own module is not half imported."""
        for row in list(self._waiting):
            half_imported = row.ours in sys.modules and row.ours not in self._executed
            if row.auto not in self._executed or half_imported or row not in self._waiting:
                continue
            self._waiting.remove(row)  # before the import, which comes back here
            try:
                row.register(sys.modules[row.auto], import_module(row.ours))
            except BaseException:
                self._waiting.append(row)
                raise


class _NoticingLoader(Loader):
    """Another loader, with a word afterwards. What else debuggers and tracebacks ask for is that loader's."""

    def __init__(self, loader: Any, notice: Callable[[str], None]) -> None:
        self._loader = loader
        self._notice = notice

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._notice(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _config_class() -> Any:
    return import_module(f"{_OURS}.configuration_flashsloth").FlashSlothConfig


def _is_whole(module: ModuleType | None) -> bool:
    return module is not None and not getattr(module.__spec__, "_initializing", False)
