"""Keeps the decoders' libraries from talking to the terminal while a picture of ours is decoded.

In: a block that decodes. Out: its exceptions, and nothing on the standard error. Two talk: libtiff, in C, through
handlers that belong to the whole process, and the loggers of Pillow's TIFF reader and of tifffile. The handlers are
taken away when the first of any number of threads enters and put back when the last one leaves; nothing else that any
thread writes is touched, as it would be if the file descriptor were redirected. The loggers are silent in the threads
that decode here and nowhere else.

Where Pillow hides its libtiff (a static build), the handlers cannot be reached, and libtiff says what it says.
"""

import ctypes
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from PIL import Image

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetWarningHandler")
LOGGERS = ("PIL.TiffImagePlugin", "tifffile")

_lock = threading.Lock()
_decoding = 0  # threads inside, of which the first takes the handlers and the last puts them back
_taken: list[int | None] = []
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
    global _decoding
    with _lock:
        _decoding += 1
        if _decoding == 1:
            _taken[:] = [setter(None) for setter in _handler_setters()]
            for name in LOGGERS:
                logging.getLogger(name).addFilter(_elsewhere)


def _leave() -> None:
    global _decoding
    with _lock:
        _decoding -= 1
        if _decoding == 0:
            for setter, handler in zip(_handler_setters(), _taken, strict=True):
                setter(handler)
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
