"""Decoders write nothing to the terminal, whoever decodes; and nobody else is silenced."""

import io
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from picture_files import corners, encoded
from PIL import Image

from flashsloth.media import PictureError, open_picture
from flashsloth.media.decoders import PILLOWS_WARNINGS, quiet_decoders
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def noisy() -> list[bytes]:
    """TIFFs about which libtiff has something to say."""
    whole = encoded(corners(), "TIFF", compression="jpeg")
    return [whole[:place] + b"\xff" * 6 + whole[place + 6 :] for place in range(8, len(whole) - 6, 29)]


@contextmanager
def terminal() -> Iterator[io.BytesIO]:
    """What is written to the file descriptor of the standard error, by C too."""
    said = io.BytesIO()
    reader, writer = os.pipe()
    kept = os.dup(2)
    os.set_blocking(reader, False)
    os.dup2(writer, 2)
    try:
        yield said
    finally:
        os.dup2(kept, 2)
        for descriptor in (writer, kept):
            os.close(descriptor)
        while part := os.read(reader, 1 << 16):
            said.write(part)
        os.close(reader)


def decode_all(decode: Callable[[bytes], object]) -> None:
    for data in noisy():
        with suppress(Exception):  # libtiff's own failures differ; only what it says is looked at
            decode(data)


def test_nothing_is_said_here_and_everything_elsewhere() -> None:
    with terminal() as before:
        decode_all(lambda data: Image.open(io.BytesIO(data)).load())
    if not before.getvalue():
        pytest.skip("this Pillow's libtiff says nothing")
    with terminal() as ours:
        decode_all(open_picture)
    assert ours.getvalue() == b""
    with terminal() as after:
        decode_all(lambda data: Image.open(io.BytesIO(data)).load())
    assert after.getvalue() == before.getvalue()


def test_many_threads_at_once() -> None:
    with terminal() as said:
        threads = [threading.Thread(target=decode_all, args=(open_picture,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        os.write(2, b"another thread's line\n")  # which a redirected descriptor would swallow
        for thread in threads:
            thread.join()
    assert said.getvalue() == b"another thread's line\n"


def test_loggers_speak_again_and_in_other_threads(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tifffile")
    with quiet_decoders():
        logger.error("here")
        with quiet_decoders():
            logger.error("inside")
        logger.error("here again")
        other = threading.Thread(target=logger.error, args=("elsewhere",))
        other.start()
        other.join()
    logger.error("afterwards")
    assert caplog.messages == ["elsewhere", "afterwards"]


def test_pillow_warns_nobody_here_and_everybody_afterwards() -> None:
    damaged = bytearray(encoded(corners(), "TIFF"))
    damaged[damaged.index(struct.pack("<HH", 258, 3)) + 4] = 255  # more bits a sample than the file has bytes
    palette = encoded(corners().quantize(4), "PNG", transparency=bytes([0, 100]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for data in (bytes(damaged), palette):
            for policy in ("careful", "official"):
                with suppress(PictureError):
                    open_picture(data, image_policy=policy)
        FlashSlothImageProcessorPil()(Image.open(io.BytesIO(palette)))
        assert not said
        Image.open(io.BytesIO(palette)).convert("RGB")
        assert len(said) == 1
    with quiet_decoders(), warnings.catch_warnings():
        kept = warnings.filters  # a copy, which is put aside before the filters are mended
    assert not any(filter is PILLOWS_WARNINGS for filter in warnings.filters)
    assert PILLOWS_WARNINGS in kept


def test_an_error_inside_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PictureError):
        open_picture(encoded(corners(), "TIFF")[:60])
    logging.getLogger("PIL.TiffImagePlugin").error("afterwards")
    assert caplog.messages == ["afterwards"]


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    script = (
        "import sys, flashsloth.media\n"
        "from PIL import Image\n"
        "flashsloth.media.open_picture(Image.new('RGB', (4, 4)))\n"
        "assert not {'tifffile', 'imagecodecs', 'pillow_heif', 'PIL.ImageCms', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
