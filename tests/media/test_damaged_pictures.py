"""Whatever is done to a file's bytes, the answer is an RGB picture or one line that says why not."""

import random
from importlib.util import find_spec

import numpy as np
import pytest
from picture_files import corners, damaged, encoded, exif_with_orientation
from PIL import Image, features
from test_colour import P3_PROFILE
from test_heif import heic

from flashsloth.media import PictureError, open_picture

CASES = 60  # of each file
EXIF = exif_with_orientation(6)
DEEP = Image.fromarray(np.arange(24 * 16, dtype=np.uint16).reshape(16, 24) * 170)
CLEAR = corners().convert("RGBA")
CLEAR.putalpha(90)
FILES = {
    "png": encoded(corners(), "PNG", exif=EXIF),
    "png, palette": encoded(corners().convert("P"), "PNG", transparency=3),
    "png, 16 bits": encoded(DEEP, "PNG"),
    "png, animated": encoded(corners(), "PNG", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    "jpeg": encoded(corners(), "JPEG", exif=EXIF),
    "jpeg, progressive": encoded(corners(), "JPEG", progressive=True),
    "jpeg, cmyk": encoded(corners().convert("CMYK"), "JPEG"),
    "webp": encoded(corners(), "WEBP", exif=EXIF),
    "webp, lossless": encoded(CLEAR, "WEBP", lossless=True),
    "gif": encoded(corners(), "GIF"),
    "gif, animated": encoded(corners(), "GIF", save_all=True, append_images=[Image.new("RGB", (24, 16))]),
    "bmp": encoded(corners(), "BMP"),
    "bmp, palette": encoded(corners().convert("P"), "BMP"),
    "tiff": encoded(corners(), "TIFF", exif=EXIF),
    "tiff, lzw": encoded(CLEAR, "TIFF", compression="tiff_lzw"),
    "tiff, jpeg": encoded(corners(), "TIFF", compression="jpeg"),
    "tiff, 16 bits": encoded(DEEP, "TIFF", compression="tiff_deflate"),
    "png, profile": encoded(corners(), "PNG", icc_profile=P3_PROFILE),
    "tiff, float": encoded(Image.fromarray(np.asarray(DEEP).astype(np.float32)), "TIFF"),
}
if features.check("avif"):
    FILES["avif"] = encoded(corners(), "AVIF", exif=EXIF)
if find_spec("pillow_heif"):
    FILES["heic"] = heic(corners(), exif=EXIF.tobytes(), icc_profile=P3_PROFILE)
if find_spec("tifffile") and find_spec("imagecodecs"):
    from test_tiff_layouts import COLOURS, tiff, whole

    FILES["tiff, planes of 16 bits"] = tiff(whole(COLOURS, 16), photometric="rgb", planarconfig="separate")
    FILES["tiff, 10 bits"] = tiff(whole(COLOURS, 10), photometric="rgb", bitspersample=10)
    FILES["tiff, float in tiles"] = tiff(
        COLOURS.astype("f4"), photometric="rgb", compression="lzw", predictor=True, tile=(16, 16), bigtiff=True
    )
    FILES["tiff, 32 bits"] = tiff(whole(COLOURS, 32), photometric="rgb", compression="zstd")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", FILES)
def test_damage(name: str) -> None:
    chance = random.Random(name)
    assert open_picture(FILES[name]).mode == "RGB"
    refusals = []
    for _ in range(CASES):
        data = damaged(FILES[name], chance)
        for policy in ("careful", "official"):
            try:
                picture = open_picture(data, image_policy=policy)
            except PictureError as error:
                refusals.append(str(error))
            else:
                assert picture.mode == "RGB"
                assert len(picture.tobytes()) == picture.width * picture.height * 3
    assert refusals  # or nothing was damaged
    assert all(line.isprintable() and len(line) < 400 for line in refusals)
