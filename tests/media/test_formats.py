"""Formats go by content; what is damaged, cut off or built to hurt is refused in one line, cheaply."""

import io
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import PNG_GREY, PNG_SIGNATURE, bomb, corners, encoded, packed_zeros, png
from PIL import Image, ImageFile, PngImagePlugin

from flashsloth.media import MediaLimits, PictureError, open_picture
from flashsloth.media.formats import MAX_JPEG_SCANS
from flashsloth.media.limits import MIB

LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
}
EVERY = [
    *LOSSLESS.items(),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {"quality": 90}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "jpeg"}),
    ("TIFF", {"compression": "packbits"}),
    ("TIFF", {"compression": "tiff_deflate", "big_tiff": True}),
]


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(PictureError) as caught:
        open_picture(source, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def noise(width: int = 48, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("kind", "options"), EVERY, ids=str)
def test_every_format_under_any_name(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = encoded(noise(), kind, **options)
    misnamed = tmp_path / "picture.txt"
    misnamed.write_bytes(data)
    opened = open_picture(misnamed)
    with Image.open(io.BytesIO(data)) as expected:
        assert np.array_equal(np.asarray(opened), np.asarray(expected.convert("RGB")))
    assert type(opened) is Image.Image
    assert opened.info == {}
    if kind not in ("GIF", "JPEG") and "quality" not in options and options.get("compression") != "jpeg":
        assert opened.tobytes() == noise().tobytes()


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS.items()], ids=str)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_official_policy_is_pillows_conversion(kind: str, options: dict[str, Any], mode: str) -> None:
    data = encoded(noise().convert(mode).convert("RGBA" if kind == "WEBP" else mode), kind, **options)
    with Image.open(io.BytesIO(data)) as expected:
        plain = expected.convert("RGB")
    assert open_picture(data, image_policy="official").tobytes() == plain.tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert open_picture(data).getcolors() == [(64, (255, 0, 0))]


def offset_by_one(gif: bytes) -> bytes:
    """A GIF of 2x2 pixels whose frame begins at (1, 1)."""
    start = gif.index(b",\0\0\0\0\x02\0\x02\0")
    return gif[:start] + b",\x01\0\x01\0\x02\0\x02\0" + gif[start + 9 :]


def test_a_first_frame_smaller_than_its_gif() -> None:
    """Outside the frame nothing was drawn: white, as of a transparent colour, and not the palette's first."""
    opened = open_picture(offset_by_one(encoded(Image.new("P", (2, 2)), "GIF", transparency=0)))
    assert opened.size == (3, 3)
    assert opened.getcolors() == [(9, (255, 255, 255))]
    red = offset_by_one(encoded(Image.new("RGB", (2, 2), "red"), "GIF"))
    found = np.asarray(open_picture(red))
    assert (found[1:, 1:] == (255, 0, 0)).all()
    assert (found[0] == 255).all()
    assert (found[:, 0] == 255).all()


def test_a_tiff_whose_first_page_is_a_preview_is_refused() -> None:
    """As in most cameras' raw files. Alone, such a page is the picture."""
    preview = {"tiffinfo": {254: 1}}
    assert open_picture(encoded(corners(), "TIFF", **preview)).size == corners().size
    several = encoded(corners(), "TIFF", save_all=True, append_images=[corners()], **preview)
    assert "a reduced copy" in refusal(several)
    assert open_picture(encoded(corners(), "TIFF", save_all=True, append_images=[corners()])).size == corners().size


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "empty"),
        (b"hello, I am text\n" * 9, "text, which begins 'hello, I am text"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "a PDF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04\x14\0", "ZIP"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "a video"),
        (b"\0\0\0\x20ftyp\x1b[1m\0\0\0\0", "a video"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", "a JPEG XL picture"),
        (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a", "a JPEG 2000 picture"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81", "a WebM or Matroska video"),
        (b"8BPS\0\x01", "a Photoshop document"),
        (b"qoif\0\0", "a QOI picture"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"\0\x01\x02\x03\x80\x81", "00 01 02 03 80 81"),
        (encoded(corners(), "PPM"), "a PNM picture (PBM, PGM or PPM); expected PNG"),
        (encoded(corners(), "ICO"), "an icon (ICO); expected PNG"),
        (encoded(corners(), "SGI"), "an SGI picture; expected PNG"),
        (encoded(corners(), "DDS"), "a DDS texture; expected PNG"),
        (encoded(corners(), "TGA"), "a TGA (Targa) picture; expected PNG"),
        (encoded(corners(), "TGA")[:-26], "a TGA (Targa) picture"),  # as older programs end it
        (encoded(corners(), "PCX"), "a PCX picture; expected PNG"),
        (encoded(corners(), "ICNS", sizes=[(16, 16)]), "an icon (ICNS)"),
        (b"P6 24 16 255\n", "a PNM picture"),
        (b"\xff\x4f\xff\x51\x00\x2f", "a JPEG 2000 picture"),
        (b"\x59\xa6\x6a\x95\0\0", "a Sun raster picture"),
        (b"\0" * 128 + b"DICM", "a DICOM picture"),
        (b"iVBORw0KGgoAAAANSUhEUg", "a PNG in base64; put data:image/png;base64, before it"),
        (b"BM is how this text begins", "BMP"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "a sound (WAV); expected PNG"),
        (PNG_SIGNATURE, "PNG"),
        (PNG_SIGNATURE + b"\0" * 99, "PNG"),
    ],
    ids=ascii,
)
def test_what_is_not_a_picture_is_named(data: bytes, found: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(data)
    assert found in refusal(file)
    assert "a.png" in refusal(file)
    assert found in refusal(data)


def test_a_12_bit_jpeg_is_refused() -> None:
    data = bytearray(encoded(noise(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # the frame header's precision
    assert "JPEG" in refusal(bytes(data))


def test_alpha_in_a_16_bit_bmp_is_refused() -> None:
    """Which Pillow leaves out, so that what is transparent shows."""
    masks = struct.pack("<4I", 0x7C00, 0x3E0, 0x1F, 0x8000)
    head = struct.pack("<IiiHHIIiiII", 56, 4, 4, 1, 16, 3, 32, 0, 0, 0, 0) + masks
    data = b"BM" + struct.pack("<IHHI", 14 + 56 + 32, 0, 0, 14 + 56) + head + bytes(32)
    assert "alpha in 16 bits" in refusal(data)
    opaque = data.replace(masks, masks[:12] + bytes(4))
    assert open_picture(opaque).getcolors() == [(16, (0, 0, 0))]


@pytest.mark.parametrize(("kind", "options"), EVERY, ids=str)
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_files(kind: str, options: dict[str, Any], tolerant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)  # as other code in the process may have
    data = encoded(noise(), kind, **options)
    assert open_picture(data).size == noise().size
    for part in (0.05, 0.3, 0.6, 0.9):
        assert "damaged" in refusal(data[: int(len(data) * part)])


def test_no_setting_of_pillows_is_relied_on(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(noise(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert open_picture(data).tobytes() == noise().tobytes()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert "max_pixels" in refusal(data, limits=MediaLimits(max_pixels=1000))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("size", "limits", "field"),
    [
        ((101, 100), MediaLimits(max_pixels=10_000), "max_pixels"),
        ((101, 10), MediaLimits(max_side=100), "max_side"),
        ((10, 101), MediaLimits(max_side=100), "max_side"),
        ((101, 10), MediaLimits(max_aspect=10), "max_aspect"),
        ((10, 101), MediaLimits(max_aspect=10), "max_aspect"),
        ((30_000, 1), MediaLimits(), "max_aspect"),
        ((1, 30_000), MediaLimits(), "max_aspect"),
        ((40_000, 300), MediaLimits(), "max_side"),
    ],
)
def test_limits_of_size(size: tuple[int, int], limits: MediaLimits, field: str) -> None:
    assert field in refusal(encoded(Image.new("L", size), "PNG"), limits=limits)
    assert field in refusal(Image.new("L", size), limits=limits)
    assert field in refusal(np.zeros(size[::-1], np.uint8), limits=limits)


def test_limits_are_reached_exactly() -> None:
    limits = MediaLimits(max_pixels=1000, max_side=100, max_aspect=10)
    assert open_picture(Image.new("L", (100, 10)), limits=limits).size == (100, 10)


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_side", "max_aspect"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "1", None, True])
def test_limits_check_themselves(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        MediaLimits(**{field: value})


def peak_growth_of_opening(file: Path, options: str = "") -> int:
    """Bytes by which a process grows, at the most, while it opens `file`.

    A new program inherits the peak of the one that started it; the fork of a small program does not.
    """
    script = f"""
import os, resource, sys
from flashsloth.media import MediaLimits, PictureError, open_picture
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
before = peak()
try:
    open_picture({str(file)!r}{options})
except PictureError:
    pass
print(peak() - before)
"""
    return int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)


def test_the_measure_of_memory_sees_a_large_picture(tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    Image.new("1", (8000, 6000)).save(file)
    assert 100 * MIB < peak_growth_of_opening(file) < 1024 * MIB


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_decompression_bomb_costs_nothing(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(bomb(kind))
    assert file.stat().st_size < 2 * MIB
    assert "20000×20000 pixels; expected at most" in refusal(file)
    assert peak_growth_of_opening(file) < 50 * MIB


def test_a_strip_costs_nothing_refused_or_allowed(tmp_path: Path) -> None:
    file = tmp_path / "strip.png"
    Image.new("RGB", (30_000, 1)).save(file)
    assert "30000×1 pixels; expected sides at most 200 to 1" in refusal(file)
    assert open_picture(file, limits=MediaLimits(max_aspect=30_000)).size == (30_000, 1)
    assert peak_growth_of_opening(file) < 50 * MIB
    assert peak_growth_of_opening(file, ", limits=MediaLimits(max_aspect=30_000)") < 50 * MIB


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_whose_text_unpacks_to_very_much(kind: bytes, tmp_path: Path) -> None:
    text = packed_zeros(256)
    head = b"key\0\x01\0\0\0" if kind == b"iTXt" else b"key\0\0"
    file = tmp_path / "text.png"
    file.write_bytes(png(1, 1, 8, PNG_GREY, b"\0\0", (kind, head + text)))
    assert file.stat().st_size < 2 * MIB
    assert "damaged or unusual PNG" in refusal(file)
    assert peak_growth_of_opening(file) < 50 * MIB


def test_a_png_with_many_texts_or_a_profile_of_ordinary_size() -> None:
    info = PngImagePlugin.PngInfo()
    for number in range(20):
        info.add_text(f"key {number}", "x" * 10_000, zip=True)
    assert open_picture(encoded(noise(), "PNG", pnginfo=info, icc_profile=b"x" * 3000)).tobytes() == noise().tobytes()


def test_a_jpeg_of_a_thousand_scans_is_refused_at_once() -> None:
    data = encoded(Image.new("RGB", (4096, 4096)), "JPEG", progressive=True)
    assert open_picture(data).size == (4096, 4096)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    start = time.perf_counter()
    message = refusal(data[:-2] + last_scan * 1000 + data[-2:])
    assert f"more than {MAX_JPEG_SCANS} scans" in message
    assert time.perf_counter() - start < 1


def test_scans_are_counted_in_the_picture_alone() -> None:
    data = encoded(noise(), "JPEG", comment=b"\xff\xda" * 1000)  # in a segment that is skipped
    assert open_picture(data + b"\xff\xda" * 1000).size == noise().size  # after the end, as a phone's short video is


@pytest.mark.parametrize("compression", [1, 5, 8])
@pytest.mark.parametrize("tile", [(200_000, 20_000), (0, 0), (2**31, 2**31), (16, 2**32 - 16)])
def test_tiles_far_larger_than_their_tiff(tile: tuple[int, int], compression: int, tmp_path: Path) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile[0], 323: tile[1], 324: 8, 325: 64}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = tmp_path / "tiles.tif"
    file.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4096))
    assert peak_growth_of_opening(file) < 50 * MIB


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_tags_that_all_claim_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """Half a megabyte of file, two thousand times over: which Pillow 12.2 copies for each tag, and 13 does not."""
    size, count = MIB // 2, 2000
    tags = {256: (4, 1, 8), 257: (4, 1, 8), 258: (4, 1, 8), 259: (4, 1, 1), 262: (4, 1, 1), 273: (4, 1, 8)}
    tags |= {277: (4, 1, 1), 278: (4, 1, 8), 279: (4, 1, 64)} | {40_000 + i: (7, size, 8) for i in range(count)}
    directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4 + size)
    if kind == "JPEG":
        parts = [b"Exif\0\0" + data[start : start + 65_000] for start in range(0, len(data), 65_000)]
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts)
        plain = encoded(corners(), "JPEG")
        after_jfif = 4 + struct.unpack_from(">H", plain, 4)[0]  # which says the resolution that EXIF would be asked for
        data = plain[:2] + segments + plain[after_jfif:]
    file = tmp_path / "tags"
    file.write_bytes(data)
    assert open_picture(file).size == ((8, 8) if kind == "TIFF" else corners().size)
    assert peak_growth_of_opening(file) < 50 * MIB
