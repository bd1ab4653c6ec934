"""AVIF and HEIC: the right pixels, upright, in sRGB, within the limits; or what to install."""

import struct
import sys
from typing import Any

import numpy as np
import pytest
from picture_files import BLUE, RED, corners, encoded, exif_with_orientation
from PIL import AvifImagePlugin, Image, ImageFile, features
from test_colour import P3_PROFILE, p3_in_srgb
from test_pixels import SEEN, quarters

from flashsloth.media import MediaLimits, PictureError, open_picture
from flashsloth.media.heif import container_format

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
WITHIN = 6  # levels of 255: both formats lose some
SRGB, P3, MATRIX, FULL = 1, 12, 6, 1


def heic(image: Image.Image, **options: Any) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif (flashsloth[pictures]) is not installed")
    pillow_heif.register_heif_opener()  # so that Pillow can write the format
    return encoded(image, "HEIF", quality=-1, chroma=444, **options)


def avif(image: Image.Image, **options: Any) -> bytes:
    return encoded(image, "AVIF", quality=100, subsampling="4:4:4", **options)


WRITERS = [pytest.param(avif, marks=needs_avif, id="AVIF"), pytest.param(heic, id="HEIC")]


def with_primaries(data: bytes, primaries: int) -> bytes:
    """`data` with other code points in its nclx box."""
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">H", primaries) + data[place + 2 :]


@pytest.mark.parametrize("write", WRITERS)
def test_pixels(write: Any) -> None:
    assert np.abs(quarters(open_picture(write(corners()))) - np.array(SEEN[1])).max() <= WITHIN
    assert np.abs(quarters(open_picture(write(corners()), image_policy="official")) - np.array(SEEN[1])).max() <= WITHIN


@pytest.mark.parametrize("write", WRITERS)
def test_alpha_is_laid_on_white(write: Any) -> None:
    glass = corners().convert("RGBA")
    glass.putalpha(128)
    expected = np.array(SEEN[1]) * 128 / 255 + 127
    assert np.abs(quarters(open_picture(write(glass))) - expected).max() <= WITHIN


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("write", WRITERS)
def test_orientation_is_applied_once(write: Any, orientation: int) -> None:
    data = write(corners(), exif=exif_with_orientation(orientation).tobytes())  # both write it as irot and imir
    assert np.abs(quarters(open_picture(data)) - np.array(SEEN[orientation])).max() <= WITHIN


@pytest.mark.parametrize("write", WRITERS)
def test_code_points_and_profiles(write: Any) -> None:
    expected = np.round(p3_in_srgb(np.array(SEEN[1])))
    data = write(corners())
    assert np.abs(quarters(open_picture(with_primaries(data, P3))) - expected).max() <= WITHIN
    if write is avif:  # pillow-heif refuses a number that it does not know
        assert np.abs(quarters(open_picture(with_primaries(data, 99))) - np.array(SEEN[1])).max() <= WITHIN
    data = write(corners(), icc_profile=P3_PROFILE)
    assert np.abs(quarters(open_picture(data)) - expected).max() <= WITHIN


@needs_avif
def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    opened = np.asarray(open_picture(avif(frames[0], save_all=True, append_images=frames[1:]))).astype(int)
    assert np.abs(opened - RED).max() <= WITHIN


@pytest.mark.parametrize("write", WRITERS)
def test_limits(write: Any) -> None:
    with pytest.raises(PictureError, match="max_pixels"):
        open_picture(write(Image.new("RGB", (101, 100))), limits=MediaLimits(max_pixels=10_000))
    with pytest.raises(PictureError, match="max_side"):
        open_picture(write(Image.new("RGB", (101, 100))), limits=MediaLimits(max_side=100))


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_truncated_files(write: Any, tolerant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = write(noise)
    for part in (0.05, 0.3, 0.6, 0.9):
        with pytest.raises(PictureError, match="damaged"):
            open_picture(data[: int(len(data) * part)])


def test_without_pillow_heif_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match=r"an HEIC picture; `pip install 'flashsloth\[pictures\]'`"):
        open_picture(data)


def test_without_avif_in_pillow_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(PictureError, match="an AVIF picture, which this Pillow was built without"):
        open_picture(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(40))
    assert AvifImagePlugin  # the module itself is always there


@pytest.mark.parametrize(
    ("brands", "expected"),
    [
        (b"avif\0\0\0\0mif1miaf", "AVIF"),
        (b"avis\0\0\0\0avif", "AVIF"),
        (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"heic\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1heic", "HEIC"),
        (b"msf1\0\0\0\0hevc", "HEIC"),
        (b"isom\0\0\0\0avc1mp42", None),
        (b"qt  \0\0\0\0qt  ", None),
        (b"M4A \0\0\0\0avif", None),
    ],
)
def test_brands(brands: bytes, expected: str | None) -> None:
    data = struct.pack(">I4s", 8 + len(brands), b"ftyp") + brands
    assert container_format(data) == expected
    if expected is None:
        with pytest.raises(PictureError, match="a video or another ISO media file"):
            open_picture(data)
