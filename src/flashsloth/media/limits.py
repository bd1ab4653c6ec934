"""What a picture may cost, and the error that says it costs too much or is none.

In: byte counts and sizes, known before anything is decoded. Out: nothing, or a `PictureError` of one printable line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from numbers import Real

from flashsloth.errors import FlashSlothError

MIB = 1 << 20
SHOWN_CHARACTERS = 80  # of a user's string in an error
SHOWN_CAUSE_CHARACTERS = 160  # of a library's message in an error


class PictureError(FlashSlothError, ValueError):
    """A user's mistake with a picture: one line with what was found, what was expected, what to do."""


@dataclass(frozen=True)
class MediaLimits:
    """The most that a picture may be. Within the defaults, opening one takes a gigabyte or little more.

    max_bytes: bytes of the encoded file.
    max_pixels: width × height. The default is 8192 × 6144, the largest that 50-megapixel phones take.
    max_side: pixels of the longer side.
    max_aspect: longer side over shorter side.
    """

    max_bytes: int = 64 * MIB
    max_pixels: int = 8192 * 6144
    max_side: int = 32_768
    max_aspect: float = 200.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
                raise ValueError(f"MediaLimits.{field.name} is {value!r}; expected a number over 0")

    def check_bytes(self, name: str, count: int) -> None:
        """`count` encoded bytes, or as many as were read before the reading stopped."""
        if count > self.max_bytes:
            raise PictureError(
                f"{name}: more than {self.max_bytes:,} bytes; shrink the picture or raise MediaLimits.max_bytes"
            )

    def check_size(self, name: str, width: int, height: int) -> None:
        """A picture of `width` × `height` pixels, before they are decoded."""
        found, longer, shorter = f"{name}: {width}×{height} pixels", max(width, height), min(width, height)
        if shorter < 1:
            raise PictureError(f"{found}, so there is nothing to see; expected at least 1×1")
        if longer > self.max_side:
            raise PictureError(f"{found}; expected at most {self.max_side:,} a side: {_advice('max_side')}")
        if width * height > self.max_pixels:
            raise PictureError(f"{found}; expected at most {self.max_pixels:,} in all: {_advice('max_pixels')}")
        if longer > self.max_aspect * shorter:
            most = f"sides at most {self.max_aspect:g} to 1"
            raise PictureError(f"{found}; expected {most}: crop the picture or raise MediaLimits.max_aspect")


def _advice(field: str) -> str:
    return f"shrink the picture or raise MediaLimits.{field}"


DEFAULT_LIMITS = MediaLimits()


def shown(text: str) -> str:
    """A user's string, quoted, short, on one line and with no control characters: safe on a terminal."""
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return repr(text)


def cause(error: BaseException) -> str:
    """What an exception says, or else its type, short, on one line and with no control characters."""
    said = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    if not said or isinstance(error, KeyError):  # of which str() is the missing key alone
        said = f"{type(error).__name__} {said}".rstrip()
    return said if len(said) <= SHOWN_CAUSE_CHARACTERS else said[:SHOWN_CAUSE_CHARACTERS] + "…"


@contextmanager
def refusing(found: str, *failures: type[Exception], advice: str | None = None) -> Iterator[None]:
    """Turns `failures` of the block into `PictureError("found: cause; advice")`."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError(f"{found}: not enough memory is free; shrink the picture") from error
    except failures as error:
        raise PictureError(f"{found}: {cause(error)}" + (f"; {advice}" if advice else "")) from error
