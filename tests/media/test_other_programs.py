"""Files that ImageMagick and GraphicsMagick write give the pixels that went into them, or are refused.

Both are found on PATH; where one is missing its tests are skipped, and fail where CI is "true". A file is compared with
what was given to the program, not with what the program reads back: of a 24-bit TIFF, for one, ImageMagick 6 reads back
something else than it was given.
"""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from picture_files import encoded
from PIL import Image
from test_colour import P3_PROFILE, SRGB_PROFILE

from flashsloth.media import PictureError, open_picture

PROGRAMS = {
    "imagemagick": next(
        ([found] for name in ("convert-im6", "convert", "magick") if (found := shutil.which(name))), None
    ),
    "graphicsmagick": [found, "convert"] if (found := shutil.which("gm")) else None,
}
HEIGHT, WIDTH = 22, 37
DOWN, ACROSS = np.mgrid[0:HEIGHT, 0:WIDTH]
CIRCLE = (ACROSS - 18) ** 2 + (DOWN - 11) ** 2 < 64
COLOURS = np.dstack([ACROSS / (WIDTH - 1), DOWN / (HEIGHT - 1), 0.1 + 0.8 * CIRCLE])  # [H, W, 3] of 0..1
ALPHA = np.clip(1.1 * DOWN / (HEIGHT - 1), 0, 1)
FLOAT = ("-define", "quantum:format=floating-point")
WITHIN = 2  # levels of 255


def convert(program: str, folder: Path, kind: str, *options: str, pixels: np.ndarray = COLOURS) -> bytes:
    """What the program makes of [H, W, 1 or 3] of 0..1, told in 16 bits, or of [H, W, 4], told in 8."""
    command = PROGRAMS[program]
    if command is None:
        missing = f"{program} is not on PATH"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    assert command is not None
    source, target = folder / "source", folder / f"target.{kind}"
    if pixels.shape[2] == 4:
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(source, "PNG")
    else:
        magic = b"P6" if pixels.shape[2] == 3 else b"P5"
        wide = np.rint(pixels * 65535).astype(">u2").tobytes()
        source.write_bytes(magic + b"\n%d %d\n65535\n" % (WIDTH, HEIGHT) + wide)
    target.unlink(missing_ok=True)
    told = {1: "PGM", 3: "PPM", 4: "PNG"}[pixels.shape[2]]
    subprocess.run([*command, f"{told}:{source}", *options, f"{kind}:{target}"], capture_output=True)
    if not target.exists():
        pytest.skip(f"this {program} does not write {kind} with {' '.join(options)}")
    return target.read_bytes()


def off(data: bytes, expected: np.ndarray) -> float:
    found = np.asarray(open_picture(data)).astype(float)
    assert found.shape == expected.shape
    return float(np.abs(found - expected * 255).max())


EVERY = pytest.mark.parametrize("program", PROGRAMS)
STORAGE = {
    "plain": ("-compress", "None"),
    "planes": ("-compress", "None", "-interlace", "plane"),
    "big-endian": ("-compress", "None", "-endian", "MSB"),
    "last bit first": ("-compress", "None", "-define", "tiff:fill-order=lsb"),
    "lzw": ("-compress", "LZW"),
    "deflate": ("-compress", "Zip"),
}


@EVERY
@pytest.mark.parametrize("storage", ["plain", "planes", "lzw"])
@pytest.mark.parametrize("depth", ["4", "10", "12", "16", "24", "32", "16 float", "32 float", "64 float"])
def test_rgb_tiff(program: str, depth: str, storage: str, tmp_path: Path) -> None:
    bits, *kind = depth.split()
    data = convert(program, tmp_path, "tiff", "-depth", bits, *(FLOAT if kind else ()), *STORAGE[storage])
    assert off(data, COLOURS) <= WITHIN + (15 if bits == "4" else 0)  # a step of 4 bits, which ImageMagick rounds down


@EVERY
@pytest.mark.parametrize("storage", ["planes", "big-endian"])
@pytest.mark.parametrize("depth", ["8", "16", "32", "32 float"])
def test_cmyk_and_grey_tiff(program: str, depth: str, storage: str, tmp_path: Path) -> None:
    bits, *kind = depth.split()
    options = ("-depth", bits, *(FLOAT if kind else ()), *STORAGE[storage])
    if program == "imagemagick":  # the other one mixes black in, by a rule of its own
        assert off(convert(program, tmp_path, "tiff", "-colorspace", "CMYK", *options), COLOURS) <= WITHIN
    grey = convert(program, tmp_path, "tiff", *options, pixels=COLOURS[:, :, :1])
    assert off(grey, COLOURS[:, :, :1].repeat(3, axis=2)) <= WITHIN


@EVERY
@pytest.mark.parametrize("storage", ["planes", "deflate"])
@pytest.mark.parametrize("depth", ["8", "12", "16", "32"])
def test_tiff_with_alpha(program: str, depth: str, storage: str, tmp_path: Path) -> None:
    named = ("-define", "tiff:alpha=unassociated")  # which GraphicsMagick leaves open otherwise
    data = convert(
        program, tmp_path, "tiff", "-depth", depth, *named, *STORAGE[storage], pixels=np.dstack([COLOURS, ALPHA])
    )
    assert off(data, COLOURS * ALPHA[:, :, None] + 1 - ALPHA[:, :, None]) <= WITHIN


@EVERY
@pytest.mark.parametrize("colours", ["2", "4", "16", "200"])
@pytest.mark.parametrize("storage", ["plain", "last bit first"])
def test_palette_tiff(program: str, storage: str, colours: str, tmp_path: Path) -> None:
    """What few colours are left of it is the program's choice: Pillow, told them as a PNG, has the last word."""
    reduce = ("-dither", "None") if program == "imagemagick" else ("+dither",)
    options = (*reduce, "-colors", colours, "-depth", "8")
    expected = np.asarray(open_picture(convert(program, tmp_path, "png", *options))) / 255
    data = convert(program, tmp_path, "tiff", *options, "-type", "Palette", *STORAGE[storage])
    assert off(data, expected) <= 1


@EVERY
def test_24_bit_float_tiff_is_refused(program: str, tmp_path: Path) -> None:
    """ImageMagick writes whole numbers there and calls them floats."""
    data = convert(program, tmp_path, "tiff", "-depth", "24", *FLOAT, "-compress", "None")
    try:
        assert off(data, COLOURS) <= WITHIN  # GraphicsMagick writes another depth
    except PictureError as error:
        assert "24-bit float RGB" in str(error)  # noqa: PT017


@EVERY
@pytest.mark.parametrize(
    ("kind", "options", "within"),
    [
        ("png", ("-depth", "16"), 1),
        ("png", ("-depth", "8", "-interlace", "PNG"), 1),
        ("png", ("-depth", "4", "-type", "Palette", "+dither"), 255),
        ("bmp", (), 1),
        ("bmp2", (), 1),
        ("bmp3", (), 1),
        ("bmp", ("-define", "bmp:subtype=RGB565"), 9),
        ("bmp", ("-define", "bmp:subtype=RGB555"), 9),
        ("webp", ("-define", "webp:lossless=true"), 1),
        ("jpeg", ("-quality", "100"), 90),  # half the colours, along the circle's edge
        ("jpeg", ("-quality", "100", "-sampling-factor", "1x1"), 6),
        ("jpeg", ("-quality", "100", "-interlace", "JPEG", "-sampling-factor", "1x1"), 6),
    ],
    ids=str,
)
def test_other_formats(program: str, kind: str, options: tuple[str, ...], within: int, tmp_path: Path) -> None:
    assert off(convert(program, tmp_path, kind, *options), COLOURS) <= within


@EVERY
@pytest.mark.parametrize("options", [("-compress", "RLE"), ("-compress", "None")], ids=str)
@pytest.mark.parametrize("colours", ["2", "16", "200"])
def test_palette_bmp(program: str, colours: str, options: tuple[str, ...], tmp_path: Path) -> None:
    few = ("+dither", "-colors", colours, "-depth", "8", "-type", "Palette")
    expected = np.asarray(open_picture(convert(program, tmp_path, "png", *few))) / 255
    assert off(convert(program, tmp_path, "bmp3", *few, *options), expected) <= 1


def test_cmyk_jpeg_and_a_profile_as_imagemagick_has_them(tmp_path: Path) -> None:
    data = convert("imagemagick", tmp_path, "jpeg", "-quality", "100", "-colorspace", "CMYK")
    assert off(data, COLOURS) <= 8
    command = PROGRAMS["imagemagick"]
    assert command is not None  # or the line above has skipped this test
    source, target, profile = tmp_path / "p3.tif", tmp_path / "srgb.png", tmp_path / "srgb.icc"
    pixels = Image.fromarray(np.rint(COLOURS * 255).astype(np.uint8))
    source.write_bytes(encoded(pixels, "TIFF", icc_profile=P3_PROFILE))
    profile.write_bytes(SRGB_PROFILE)
    subprocess.run([*command, str(source), "-profile", str(profile), "-depth", "8", str(target)], check=True)
    with Image.open(target) as theirs:
        assert off(source.read_bytes(), np.asarray(theirs.convert("RGB")) / 255) <= WITHIN
