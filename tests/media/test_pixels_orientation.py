"""Orientation counts wherever a format keeps it, once: EXIF before raw profiles before XMP."""

import io
from typing import Any

import numpy as np
import pytest
from picture_files import BLUE, corners, encoded, exif_with_orientation
from PIL import Image, PngImagePlugin
from test_pixels import SEEN, quarters

from flashsloth.media import open_picture

ATTRIBUTE = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'
ELEMENT = "<x:xmpmeta><rdf:Description><tiff:Orientation>{}</tiff:Orientation></rdf:Description></x:xmpmeta>"
SPACED = "<rdf:Description tiff:Orientation = '{}' />"


def texts(**entries: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in entries.items():
        info.add_text(key.replace("_", " "), value)
    return info


def raw_profile(kind: str, data: bytes) -> dict[str, str]:
    digits = data.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return {f"Raw profile type {kind}": f"\n{kind}\n{len(data):8d}\n{lines}\n"}


def seen(source: Any, orientation: int) -> None:
    assert np.abs(quarters(open_picture(source)) - np.array(SEEN[orientation])).max() <= 4


@pytest.mark.parametrize("text", [ATTRIBUTE, ELEMENT, SPACED])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_xmp(kind: str, orientation: int, text: str) -> None:
    xmp = text.format(orientation).encode()
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        data = encoded(corners(), kind, pnginfo=info)
    elif kind == "TIFF":
        data = encoded(corners(), kind, tiffinfo={700: xmp})
    else:
        options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
        data = encoded(corners(), kind, xmp=xmp, **options)
    seen(data, orientation)


@pytest.mark.parametrize("kind", ["exif", "APP1", "EXIF"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_raw_profiles_of_a_png(orientation: int, kind: str) -> None:
    exif = exif_with_orientation(orientation).tobytes()
    prefix = b"" if exif.startswith(b"Exif") else b"Exif\0\0"
    seen(encoded(corners(), "PNG", pnginfo=texts(**raw_profile(kind, prefix + exif))), orientation)
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + ATTRIBUTE.format(orientation).encode()
    seen(encoded(corners(), "PNG", pnginfo=texts(**raw_profile("APP1", xmp))), orientation)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("exif", [1, 3, 6])
def test_exif_wins_and_only_one_is_applied(exif: int, kind: str) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    xmp = ATTRIBUTE.format(8).encode()
    if kind == "PNG":
        info = texts(**raw_profile("exif", exif_with_orientation(4).tobytes()))
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options["pnginfo"] = info
    elif kind == "TIFF":
        options["tiffinfo"] = {700: xmp, 274: exif}
    else:
        options["xmp"] = xmp
    if kind != "TIFF":
        options["exif"] = exif_with_orientation(exif)
    seen(encoded(corners(), kind, **options), exif)


def test_a_broken_exif_leaves_the_word_to_xmp() -> None:
    xmp = ATTRIBUTE.format(6).encode()
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", exif_with_orientation(99)):
        seen(encoded(corners(), "WEBP", lossless=True, exif=exif, xmp=xmp), 6)


@pytest.mark.parametrize("text", ["", "not hexadecimal", "\n\n\nzz", "\nexif\n8\n4578696", "\n" * 50])
def test_broken_raw_profiles_and_xmp_are_as_good_as_none(text: str) -> None:
    info = texts(**{"Raw profile type exif": text, "Raw profile type APP1": text})
    info.add_itxt("XML:com.adobe.xmp", "tiff:Orientation='9'" + text)
    seen(encoded(corners(), "PNG", pnginfo=info), 1)


def test_an_image_of_the_callers_is_turned_too() -> None:
    with Image.open(io.BytesIO(encoded(corners(), "WEBP", lossless=True, xmp=ATTRIBUTE.format(6).encode()))) as image:
        seen(image, 6)
        assert image.size == corners().size
    assert open_picture(corners()).getpixel((0, 15)) == BLUE
