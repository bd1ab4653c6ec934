"""Colours come out as the sRGB that their profile, code points or gamma mean; without any, no bit of them changes.

What is expected is computed here by the standards' formulas, and asked of ImageMagick in test_other_programs.py.
"""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from picture_files import PNG_GREY, PNG_RGB, corners, encoded, png
from PIL import Image, ImageCms

from flashsloth.media import open_picture
from flashsloth.media.colour import PRIMARIES, SRGB_PRIMARIES, _cicp_profile, _gives_srgb, _matrix_profile, _srgb_curve

P3_TO_SRGB = np.array(
    [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]]
)  # CSS Color 4, linear
WITHIN = 2  # levels of 255
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
P3_PROFILE = _cicp_profile(12, 13)
ADOBE_RGB = _matrix_profile((SRGB_PRIMARIES[0], (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), lambda v: v ** (563 / 256))
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLOURS)
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def shown(linear: np.ndarray) -> np.ndarray:
    """Light, 0..1 -> levels of sRGB."""
    light = np.clip(linear, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def p3_in_srgb(colours: np.ndarray) -> np.ndarray:
    return shown(_srgb_curve(colours / 255) @ P3_TO_SRGB.T)


def opened(source: Any, **options: Any) -> np.ndarray:
    return np.asarray(open_picture(source, **options)).astype(float)


def chunked(*chunks: tuple[bytes, bytes], colour: int = PNG_RGB, rows: np.ndarray = COLOURS) -> bytes:
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    return png(rows.shape[1], rows.shape[0], 8, colour, lines, *chunks)


def gama(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chrm(primaries: Any) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(v * 100_000) for pair in primaries for v in pair))


ICCP = (b"iCCP", b"p3\0\0" + zlib.compress(P3_PROFILE))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_a_display_p3_picture(kind: str) -> None:
    smooth = Image.fromarray(np.stack(np.meshgrid(*[np.arange(0, 256, 8, dtype=np.uint8)] * 2), -1)[:, :, [0, 1, 0]])
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100}}
    data = encoded(smooth, kind, icc_profile=P3_PROFILE, **options.get(kind, {}))
    with Image.open(io.BytesIO(data)) as plain:
        stored = np.asarray(plain.convert("RGB"))
    assert np.abs(opened(data) - p3_in_srgb(stored)).max() <= WITHIN
    assert np.array_equal(opened(data, image_policy="official"), stored)


def test_alpha_and_palettes_keep_theirs() -> None:
    glass = PICTURE.convert("RGBA")
    glass.putalpha(128)
    expected = p3_in_srgb(COLOURS) * 128 / 255 + 127
    assert np.abs(opened(encoded(glass, "PNG", icc_profile=P3_PROFILE)) - expected).max() <= WITHIN
    palette = PICTURE.quantize(64)
    data = encoded(palette, "PNG", icc_profile=P3_PROFILE)
    assert np.abs(opened(data) - p3_in_srgb(np.asarray(palette.convert("RGB")))).max() <= WITHIN


def test_16_bits_of_grey_and_colour() -> None:
    levels = LEVELS.astype(">u2") * 257
    for colour, channels in ((PNG_GREY, 1), (PNG_RGB, 3)):
        lines = b"".join(b"\0" + row.astype(">u2").repeat(channels).tobytes() for row in levels)
        found = opened(png(16, 16, 16, colour, lines, gama(1.0)))[:, :, 1]
        assert np.abs(found - shown(LEVELS / 255))[1:].max() <= WITHIN


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "profile", [None, SRGB_PROFILE, _matrix_profile(SRGB_PRIMARIES, _srgb_curve)], ids=["none", "srgb", "matrices"]
)
def test_no_profile_and_srgb_change_no_bit(profile: bytes | None, kind: str) -> None:
    data = encoded(PICTURE, kind, **({} if profile is None else {"icc_profile": profile}))
    with Image.open(io.BytesIO(data)) as plain:
        assert np.array_equal(opened(data), np.asarray(plain.convert("RGB")))


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0.45455)],
        [gama(0.45455), chrm(SRGB_PRIMARIES)],
        [gama(0.4535)],
        [(b"sRGB", b"\0"), gama(1.0)],
        [chrm(PRIMARIES[12])],  # without a curve a guess, which no browser makes
        [(b"cICP", bytes([1, 13, 0, 1])), ICCP],
        [gama(0.0)],
        [gama(0.45455), chrm([(0, 0)] * 4)],
        [gama(0.45455), chrm([(0.3, 0.3)] * 4)],
        [(b"cICP", bytes([77, 99, 0, 1]))],
    ],
    ids=str,
)
def test_png_chunks_that_change_nothing(chunks: list[tuple[bytes, bytes]]) -> None:
    assert np.array_equal(opened(chunked(*chunks)), COLOURS)


@pytest.mark.parametrize("gamma", [1.0, 0.55, 0.3])
def test_png_gamma(gamma: float) -> None:
    expected = shown((COLOURS / 255) ** (1 / gamma))
    found = opened(chunked(gama(gamma)))
    assert np.abs(found - expected)[COLOURS > 20].max() <= WITHIN
    grey = opened(chunked(gama(gamma), colour=PNG_GREY, rows=COLOURS[:, :, 0]))
    assert np.abs(grey[:, :, 1] - expected[:, :, 0])[COLOURS[:, :, 0] > 20].max() <= WITHIN


@pytest.mark.parametrize(
    "chunks",
    [[gama(0.45455), chrm(PRIMARIES[12])], [ICCP], [ICCP, gama(1.0)], [(b"cICP", bytes([12, 13, 0, 1]))]],
    ids=["gAMA and cHRM", "iCCP", "iCCP before gAMA", "cICP"],
)
def test_png_says_display_p3_in_four_ways(chunks: list[tuple[bytes, bytes]]) -> None:
    assert np.abs(opened(chunked(*chunks)) - p3_in_srgb(COLOURS)).max() <= WITHIN


def test_hdr_white_is_white_and_grey_is_where_it_should_be() -> None:
    """PQ 0.5806 is 203 candela per square metre; half of that light is sRGB's 188."""
    levels = np.array([[0, 117, 148, 255]], np.uint8)[:, :, None].repeat(3, axis=2)  # PQ of 0, 64, 203 and 10,000
    found = opened(chunked((b"cICP", bytes([9, 16, 0, 1])), rows=levels))[0, :, 1]
    assert found[0] == 0
    assert abs(found[1] - shown(np.array(63.6 / 203))) <= 3
    assert found[2] >= 253
    assert found[3] == 255
    hlg = opened(chunked((b"cICP", bytes([9, 18, 0, 1])), rows=np.full((1, 1, 3), 191, np.uint8)))[0, 0]
    assert hlg.min() >= 252  # 75%, the reference white


def test_grey_profiles() -> None:
    grey = Image.fromarray(LEVELS)
    linear = opened(encoded(grey, "TIFF", icc_profile=grey_profile(1.0)))
    assert np.abs(linear[:, :, 0] - shown(LEVELS / 255))[1:].max() <= WITHIN
    for image in (grey.convert("LA"), grey.convert("RGB")):
        assert np.abs(opened(encoded(image, "PNG", icc_profile=grey_profile(1.0))) - linear).max() <= WITHIN
    with_colours = opened(encoded(grey, "PNG", icc_profile=ADOBE_RGB))[:, :, 0]
    assert np.abs(with_colours - shown((LEVELS / 255) ** (563 / 256)))[2:].max() <= WITHIN


def grey_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"wtpt", 156, 20), (b"kTRC", 176, len(curve))]
    table = struct.pack(">I", 2) + b"".join(tag + struct.pack(">II", start, size) for tag, start, size in tags)
    head = struct.pack(">I4sI4s4s4s12x4s24x", 192, b"", 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    return (head + struct.pack(">I3i", 0, 63190, 65536, 54061)).ljust(128, b"\0") + table + white + curve


def test_the_profile_of_a_bmp() -> None:
    plain = encoded(PICTURE, "BMP")
    pixels = plain[54:]
    offset = 14 + 124
    head = struct.pack("<IiiHHIIiiII", 124, 16, 8, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    head += struct.pack("<IIII", 4, 124 + len(pixels), len(P3_PROFILE), 0)
    data = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + head + pixels + P3_PROFILE
    assert np.abs(opened(data) - p3_in_srgb(COLOURS)).max() <= WITHIN


@pytest.mark.parametrize(
    "profile",
    [
        b"x" * 300,
        P3_PROFILE[:200],
        P3_PROFILE[:128] + b"\xff" * 200,
        P3_PROFILE[:12] + b"link" + P3_PROFILE[16:],
        P3_PROFILE[:16] + b"CMYK" + P3_PROFILE[20:],  # for another kind of picture
        P3_PROFILE[:16] + b"GRAY" + P3_PROFILE[20:],
        P3_PROFILE[:16] + b"Lab " + P3_PROFILE[20:],
        SRGB_PROFILE[:-40],
        b"",
    ],
    ids=["noise", "cut", "no tags", "link", "cmyk", "grey", "lab", "cut sRGB", "empty"],
)
def test_broken_profiles_are_ignored(profile: bytes) -> None:
    for kind in ("PNG", "TIFF"):
        assert np.abs(opened(encoded(PICTURE, kind, icc_profile=profile)) - COLOURS).max() <= 1


def test_damaged_profiles_never_fail() -> None:
    chance = np.random.default_rng(1)
    for profile in (P3_PROFILE, grey_profile(1.8), SRGB_PROFILE):
        for _ in range(60):
            bytes_ = bytearray(profile)
            for place in chance.integers(0, min(len(bytes_), 600), 8):
                bytes_[place] = chance.integers(256)
            assert open_picture(encoded(PICTURE, "TIFF", icc_profile=bytes(bytes_))).size == PICTURE.size


def test_a_profile_is_srgb_by_its_colours_not_by_its_name() -> None:
    assert _gives_srgb(SRGB_PROFILE)
    assert not _gives_srgb(P3_PROFILE)
    assert not _gives_srgb(ADOBE_RGB)
    renamed = ImageCms.ImageCmsProfile(io.BytesIO(P3_PROFILE)).tobytes().replace(b"mntr", b"scnr", 1)
    assert not _gives_srgb(renamed)


def test_the_callers_image_keeps_its_profile() -> None:
    image = corners()
    image.info["icc_profile"] = P3_PROFILE
    pixels = image.tobytes()
    changed = opened(image)
    assert np.abs(changed - p3_in_srgb(np.asarray(corners()))).max() <= WITHIN
    assert (image.tobytes(), image.info["icc_profile"]) == (pixels, P3_PROFILE)
