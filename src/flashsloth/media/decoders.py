"""What all decoders share: silence on the terminal, and a lazy Pillow image of what Pillow does not decode itself.

In: a block that decodes. Out: its exceptions, and nothing on the standard error. Three talk: libtiff, in C, through
handlers that belong to the whole process; Pillow, through Python's warnings, of what is no fault or ends in an
exception too; and the loggers of Pillow's TIFF reader and of tifffile. The handlers are taken away, and Pillow's
warnings ignored, when the first of any number of threads enters, and all is put back when the last one leaves; nothing
else that any thread writes is touched, as it would be if the file descriptor were redirected. The loggers are silent in
the threads that decode here and nowhere else.

Where Pillow hides its libtiff (a static build), the handlers cannot be reached, and libtiff says what it says.
"""

import ctypes
import logging
import re
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from PIL import Image, ImageFile

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")
LOGGERS = ("PIL.TiffImagePlugin", "tifffile")
PILLOWS_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""As `warnings.filters` has it: what is done, message, category, module, line."""

_lock = threading.Lock()
_decoding = 0  # threads inside, of which the first takes the handlers and the last puts them back
_taken: list[int | None] = []
# The list of filters that has Pillow's in it, which a `catch_warnings` may have put aside since.
_filters: list[Any] = []
_here = threading.local()


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """A block in which libtiff and the loggers say nothing; it may be entered again inside itself."""
    _enter()
    outer = getattr(_here, "quiet", False)
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = outer
        _leave()


def _enter() -> None:
    global _decoding, _filters
    with _lock:
        _decoding += 1
        if _decoding == 1:
            _taken[:] = [setter(None) for setter in _handler_setters()]
            _filters = cast("list[Any]", warnings.filters)
            _filters.insert(0, PILLOWS_WARNINGS)
            for name in LOGGERS:
                logging.getLogger(name).addFilter(_elsewhere)


def _leave() -> None:
    global _decoding
    with _lock:
        _decoding -= 1
        if _decoding == 0:
            for setter, handler in zip(_handler_setters(), _taken, strict=True):
                setter(handler)
            for filters in (_filters, cast("list[Any]", warnings.filters)):
                if PILLOWS_WARNINGS in filters:
                    filters.remove(PILLOWS_WARNINGS)
            for name in LOGGERS:
                logging.getLogger(name).removeFilter(_elsewhere)


def _elsewhere(record: logging.LogRecord) -> bool:
    return not getattr(_here, "quiet", False)


@cache
def _handler_setters() -> list["ctypes._NamedFuncPointer"]:
    """libtiff's functions that set a handler and return the one before; none where they cannot be reached."""
    setters = []
    try:
        library = ctypes.CDLL(Image.core.__file__)  # loaded already; its symbols include those of what it links
        for name in HANDLERS:
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setters.append(setter)
    except (OSError, AttributeError):
        return []
    return setters


class DecodedElsewhere(ImageFile.ImageFile):
    """A Pillow image whose pixels another library decodes; its size and mode are known when it is made.

    Subclasses set `_size`, `_mode` and `info` in `_open`, and give the pixels in `_decode`.
    """

    @abstractmethod
    def _decode(self) -> Image.Image:
        """The pixels, as an image of any mode and size: what a header says may differ."""

    def load(self) -> Any:
        if self._im is None:
            decoded = self._decode()
            decoded.load()
            self._mode, self._size, self.im = decoded.mode, decoded.size, decoded.im
            self.tile = []
        return super().load()
