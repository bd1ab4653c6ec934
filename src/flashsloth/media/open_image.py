"""A picture from wherever a user has it: bytes, then header, then limits, then pixels, then RGB.

In: a path, encoded bytes, a data URL, a binary file object, a PIL image, a numpy array or a torch tensor, or a list of
them. Out: `PIL.Image.Image` of mode RGB, fully decoded, tied to no file. Anything else is a `PictureError`.

Of encoded bytes never more than the limit are read. Nothing is fetched from a network, and nothing but a regular file
is opened. A string is a path or a data URL: who serves strangers passes what they send through `data_url_bytes`, so
that no string of theirs is ever taken for a path.
"""

from __future__ import annotations

import base64
import difflib
import errno
import io
import itertools
import os
import re
import stat
from collections.abc import Sequence
from typing import IO, Any, BinaryIO, Literal, Protocol, TypeAlias, get_args
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from flashsloth.media.decoders import quiet_decoders
from flashsloth.media.formats import decoding, parse
from flashsloth.media.limits import DEFAULT_LIMITS, MIB, MediaLimits, PictureError, cause, refusing, shown
from flashsloth.media.pixels import channels_last, image_from_array, plain_rgb, rgb_on_white
from flashsloth.media.tiff import is_decoded_wrongly

SOURCES = "a path, bytes, a data URL, a binary file, a PIL image, a numpy array or a torch tensor"
NEIGHBOURS_SEEN = 2000  # entries of a folder that a mistyped name is compared with
NEIGHBOURS_SHOWN = 3
READ_BYTES = MIB  # asked of a file object at a time
READ_FAILURES = (OSError, ValueError, TypeError)  # of a user's `read`: a file that is closed, or write-only, or a class
DATA_SCHEME = "data:"
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
FILE_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
CONVERSION_FAILURES = (ValueError, OSError, ImportError)  # ImportError: colours without littlecms
TENSOR_FAILURES = (TypeError, RuntimeError)  # sparse, quantized, or without data
ImagePolicy: TypeAlias = Literal["careful", "official"]


def encoded_picture(source: Any, limits: MediaLimits) -> tuple[str, bytes]:
    """(name, encoded bytes) of a path, data URL, bytes-like or file object."""
    if isinstance(source, bytes | bytearray | memoryview):
        limits.check_bytes("bytes", memoryview(source).nbytes)
        return "bytes", bytes(source)
    if isinstance(source, str) and source[: len(DATA_SCHEME)].lower() == DATA_SCHEME:
        return "data URL", data_url_bytes(source, limits=limits)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        return shown(path), _path_bytes(path, limits)
    if hasattr(source, "read"):
        return _file_bytes(source, limits)
    raise PictureError(f"{type(source).__name__} is not a picture; expected {SOURCES}")


def data_url_bytes(url: str, *, limits: MediaLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes a `data:` URL carries, in base64 or percent-encoded; too many are refused before they are decoded."""
    head, comma, payload = url.partition(",")
    if head[: len(DATA_SCHEME)].lower() != DATA_SCHEME or not comma:
        raise PictureError(f"{shown(url)} is not a data URL; expected data:image/png;base64, and the bytes in base64")
    name = f"data URL {shown(head + comma)}"
    if not head.lower().endswith(";base64"):
        limits.check_bytes(name, len(payload) // len("%00"))
        data = unquote_to_bytes(payload)
    else:
        limits.check_bytes(name, (len(payload) - sum(map(payload.count, "\r\n "))) // 4 * 3 - 2)  # 2: of padding
        if "%" in payload:
            payload = unquote_to_bytes(payload).decode("latin-1")
        payload = "".join(payload.split()).rstrip("=")
        padding = "=" * (-len(payload) % 4)
        with refusing(f"{name}: not base64 after the comma", ValueError, advice="encode the file again"):
            data = base64.b64decode(payload + padding, validate=True)
    limits.check_bytes(name, len(data))
    return data


def _path_bytes(path: str, limits: MediaLimits) -> bytes:
    if not path:
        raise PictureError("the picture's path is empty; expected the path of a file")
    if URL.match(path):
        raise PictureError(f"{shown(path)} is a URL, and nothing is fetched; download the file first and pass its path")
    try:
        status = os.stat(path)
        kind = FILE_KINDS.get(stat.S_IFMT(status.st_mode))
        data = b""
        if kind is None and status.st_size <= limits.max_bytes:
            with open(path, "rb") as file:
                data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PictureError(f"{shown(path)}: no such file; {_neighbours(path)}") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"{shown(path)}: {_why_unreadable(error)}") from error
    if kind is not None:
        raise PictureError(f"{shown(path)} is {kind}; expected a picture file")
    limits.check_bytes(shown(path), max(status.st_size, len(data)))
    return data


def _why_unreadable(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return "permission to read it is denied; change its permissions or copy it"
    if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
        return f"no path can be like that; expected a path, or base64 after {DATA_SCHEME}image/png;base64,"
    return f"cannot be read ({error.strerror or cause(error)}); expected a readable file"


def _neighbours(path: str) -> str:
    """What to do about a path that is not there: the likeliest names beside it."""
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or os.curdir) as entries:
            names = [entry.name for entry in itertools.islice(entries, NEIGHBOURS_SEEN)]
    except OSError:
        return f"nor is there a folder {shown(folder)}"
    alike = difflib.get_close_matches(name, names, NEIGHBOURS_SHOWN)
    if alike:
        return f"did you mean {' or '.join(map(shown, alike))}?"
    return "check its spelling and the working directory"


def _file_bytes(file: IO[bytes], limits: MediaLimits) -> tuple[str, bytes]:
    """From where the file object stands to its end."""
    label = getattr(file, "name", None)
    name = f"file {shown(label)}" if isinstance(label, str) else f"{type(file).__name__} object"
    read = io.BytesIO()
    while read.tell() <= limits.max_bytes:
        with refusing(f"{name}: cannot be read", *READ_FAILURES, advice="expected a file opened in binary mode"):
            part = file.read(min(READ_BYTES, limits.max_bytes + 1 - read.tell()))
        if not isinstance(part, bytes | bytearray | memoryview):
            raise PictureError(f'{name}: read {type(part).__name__}; expected bytes: open it in binary mode, "rb"')
        if not part:
            break
        read.write(part)
    limits.check_bytes(name, read.tell())
    if read.tell() == 0:
        raise PictureError(f"{name}: nothing left to read; if it was read before, seek(0) first")
    return name, read.getvalue()


class Tensor(Protocol):
    """A torch tensor, without importing torch."""

    def detach(self) -> Any: ...

    def is_floating_point(self) -> bool: ...


PictureSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor
)


def open_pictures(
    sources: PictureSource | Sequence[PictureSource] | None,
    *,
    limits: MediaLimits = DEFAULT_LIMITS,
    image_policy: ImagePolicy = "careful",
) -> list[Image.Image]:
    """One picture, a list or tuple of them, or None -> a list. Of a list, the error says which picture it was."""
    if sources is None:
        return []
    if not isinstance(sources, list | tuple):
        source: Any = sources
        return [open_picture(source, limits=limits, image_policy=image_policy)]
    pictures = []
    for number, source in enumerate(sources, start=1):
        try:
            pictures.append(open_picture(source, limits=limits, image_policy=image_policy))
        except PictureError as error:
            raise PictureError(f"picture {number} of {len(sources)}: {error}") from error
    return pictures


def open_picture(
    source: PictureSource, *, limits: MediaLimits = DEFAULT_LIMITS, image_policy: ImagePolicy = "careful"
) -> Image.Image:
    """One picture -> a new RGB image, decoded and detached; `PictureError` where that cannot be.

    image_policy "careful" turns it upright, lays alpha on white and narrows deep pixels rightly; "official" is the
    published code's plain `convert("RGB")`, for parity with it. Limits and formats are the same for both.
    """
    if image_policy not in get_args(ImagePolicy):
        raise ValueError(f"image_policy is {image_policy!r}; expected one of {', '.join(get_args(ImagePolicy))}")
    name, picture = _undecoded(source, limits)
    with decoding(name, picture.format or "picture"):
        picture.load()
    failed = f"{name}: pixels of mode {picture.mode} cannot become RGB"
    with refusing(failed, *CONVERSION_FAILURES, advice="save it as 8-bit RGB"):
        if image_policy == "careful":
            return rgb_on_white(picture)
        with quiet_decoders():
            rgb = plain_rgb(picture)
    rgb.info = {}
    return rgb


def _undecoded(source: Any, limits: MediaLimits) -> tuple[str, Image.Image]:
    """(name, image) whose size is within the limits and whose pixels may still be encoded."""
    if isinstance(source, Image.Image):
        limits.check_size("PIL image", *source.size)
        if is_decoded_wrongly(source):
            raise PictureError("PIL image: a TIFF whose pixels Pillow mixes up; pass the file's path or bytes instead")
        return "PIL image", source
    if isinstance(source, np.ndarray):
        return "array", _array_picture("array", source, limits)
    if hasattr(source, "detach") and hasattr(source, "is_floating_point"):
        with refusing("tensor: cannot be read", *TENSOR_FAILURES, advice="pass a dense tensor of uint8 or float"):
            held = source.detach().cpu()
            array = (held.float() if held.is_floating_point() else held).numpy()
        return "tensor", _array_picture("tensor", array, limits)
    name, data = encoded_picture(source, limits)
    picture = parse(name, data)
    limits.check_size(name, *picture.size)
    return name, picture


def _array_picture(name: str, array: np.ndarray, limits: MediaLimits) -> Image.Image:
    with refusing(name, ValueError):
        pixels = channels_last(array)
    limits.check_size(name, pixels.shape[1], pixels.shape[0])
    with refusing(name, ValueError):
        return image_from_array(pixels)
