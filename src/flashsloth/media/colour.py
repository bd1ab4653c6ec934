"""Colours as a picture's file means them become the sRGB that a screen shows, as browsers do it.

In: a decoded Pillow image with what its file says about colour in `info`. Out: the same picture in sRGB, of mode RGB or
RGBA; or the very image that came in, where the file says nothing, says sRGB, or says something broken.

    info key                what it is
    icc_profile             an ICC profile: RGB (matrices or tables), grey or CMYK
    cicp                    (primaries, transfer, ...) as ITU-T H.273 numbers them: PNG's cICP, AVIF's and HEIC's nclx
    srgb                    PNG's sRGB chunk: nothing to convert
    gamma, chromaticity     PNG's gAMA and cHRM chunks

That is their order too; who fills `info` drops a profile that a cICP chunk overrides. All become one ICC profile, which
littlecms applies: perceptual, as browsers' table-driven profiles are. A profile that gives every colour of a sample as
sRGB does, within one level, is sRGB whatever it calls itself, and changes no pixel.

PQ and HLG, of HDR pictures: 203 candela per square metre, the reference white of ITU-R BT.2408, is white, and what is
brighter is white too.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

PROFILE_HEADER_BYTES = 128
PROFILE_CLASS, PROFILE_SPACE, PROFILE_SIGNATURE = slice(12, 16), slice(16, 20), slice(36, 40)
PICTURE_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")  # not device links, named colours or effects
SPACE_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
KEPT_PROFILE_BYTES = 1 << 16
KEPT_ANSWERS = 32  # profiles of which it is remembered whether they are sRGB: sets of photographs share a few

SAMPLE_LEVELS = 9  # of each channel: 729 colours
SAME_LEVELS = 1  # of 255

CHROMATICITY_TOLERANCE = 0.002
SRGB_GAMMA = 1 / 2.2  # as gAMA writes it; it stands for sRGB's own curve there, which the PNG specification equates
GAMMA_TOLERANCE = 0.05  # of the product with the screen's gamma, below which libpng leaves pixels as they are

D65, DCI_WHITE, C_WHITE = (0.3127, 0.3290), (0.314, 0.351), (0.310, 0.316)
PRIMARIES = {  # H.273 ColourPrimaries -> white, red, green, blue
    1: (D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    4: (C_WHITE, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: (D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: (DCI_WHITE, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
SRGB_PRIMARIES = PRIMARIES[1]
UNSPECIFIED = 2
SMALLEST_DETERMINANT, LARGEST_XYZ, MAX_GAMMA = 1e-6, 100.0, 10.0
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50_XYZ = np.array([0.9642, 1.0, 0.8249])  # the white of every ICC profile
CURVE_POINTS = 4096
REFERENCE_WHITE = 203.0  # candela per square metre
PQ_PEAK, HLG_PEAK, HLG_SYSTEM_GAMMA = 10_000.0, 1000.0, 1.2

Curve = Callable[[np.ndarray], np.ndarray]
Primaries = tuple[tuple[float, float], ...]


def in_srgb(image: Image.Image, info: dict[Any, Any]) -> Image.Image:
    """`image` in sRGB: RGB, or RGBA where it has alpha; or `image` itself, where `info` asks for no change."""
    profile = _profile(info)
    if profile is None:
        return image
    mode = SPACE_MODES[profile[PROFILE_SPACE]]
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    colours = _in_mode(image, mode)
    is_srgb = _gives_srgb if len(profile) <= KEPT_PROFILE_BYTES else _gives_srgb.__wrapped__
    if colours is None or is_srgb(profile):
        return image
    transform = _transform(profile, mode)
    if transform is None:
        return image
    converted = transform.apply(colours)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _in_mode(image: Image.Image, mode: str) -> Image.Image | None:
    """The colours of `image` in a profile's mode; None where the profile is not for such a picture."""
    bare = image.mode.removesuffix("A")
    if mode == "RGB" and (bare in ("RGB", "L", "1", "P") or image.mode in ("RGBX", "YCbCr")):
        return image.convert("RGB")
    if mode == "L" and bare in ("L", "1"):
        return image.convert("L")
    if mode == "L" and bare in ("RGB", "P"):
        red, *others = image.convert("RGB").split()
        return red if all(band.tobytes() == red.tobytes() for band in others) else None
    return image if mode == image.mode else None


def _profile(info: dict[Any, Any]) -> bytes | None:
    """The ICC profile that a picture's metadata amount to; None where that is sRGB, nothing or broken."""
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and _is_usable(profile):
        return profile
    if "cicp" in info:
        return _cicp_profile(*info["cicp"][:2])
    if "srgb" in info:
        return None
    return _gamma_profile(info.get("gamma"), info.get("chromaticity"))


def _is_usable(profile: bytes) -> bool:
    return (
        len(profile) > PROFILE_HEADER_BYTES
        and profile[PROFILE_SIGNATURE] == b"acsp"
        and profile[PROFILE_CLASS] in PICTURE_CLASSES
        and profile[PROFILE_SPACE] in SPACE_MODES
    )


@lru_cache(KEPT_ANSWERS)
def _gives_srgb(profile: bytes) -> bool:
    """Whether colours of a profile are those of sRGB."""
    mode = SPACE_MODES[profile[PROFILE_SPACE]]
    transform = None if mode == "CMYK" else _transform(profile, mode)
    if transform is None:
        return False
    levels = np.linspace(0, 255, SAMPLE_LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(SAMPLE_LEVELS, -1, 3)  # [9, 81, RGB]
    sample = Image.fromarray(grid).convert(mode)
    asked = np.asarray(sample.convert("RGB")).astype(int)
    return int(np.abs(np.asarray(transform.apply(sample)) - asked).max()) <= SAME_LEVELS


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours in `mode` to sRGB; None where littlecms cannot use the profile."""
    from PIL import ImageCms  # a library of its own, which pictures without a profile need not load

    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):  # broken: as good as none
        return None


def _gamma_profile(gamma: Any, chromaticity: Any) -> bytes | None:
    """What PNG's gAMA asks for, with cHRM or without it. With cHRM alone the curve would be a guess."""
    if not isinstance(gamma, float) or not 0 < gamma < MAX_GAMMA:
        return None
    primaries: Primaries = SRGB_PRIMARIES
    if isinstance(chromaticity, tuple) and len(chromaticity) == 8:
        pairs = tuple(zip(chromaticity[::2], chromaticity[1::2], strict=True))
        if np.abs(np.subtract(pairs, SRGB_PRIMARIES)).max() > CHROMATICITY_TOLERANCE:
            primaries = pairs
    ordinary = abs(gamma / SRGB_GAMMA - 1) <= GAMMA_TOLERANCE
    if ordinary and primaries is SRGB_PRIMARIES:
        return None
    return _matrix_profile(primaries, _srgb_curve if ordinary else lambda signal: signal ** (1 / gamma))


@cache
def _cicp_profile(primaries: int, transfer: int) -> bytes | None:
    """What code points of H.273 ask for; None where that is sRGB, or a number that we do not know."""
    curve = CURVES.get(transfer)
    known = SRGB_PRIMARIES if primaries == UNSPECIFIED else PRIMARIES.get(primaries)
    if curve is None or known is None or (curve is _srgb_curve and known is SRGB_PRIMARIES):
        return None
    return _matrix_profile(known, curve)


def _matrix_profile(primaries: Primaries, curve: Curve) -> bytes | None:
    """An ICC profile of (white, red, green, blue), each x and y, and one curve for all channels; None if impossible."""
    if any(y <= 0 for _, y in primaries):
        return None
    white, *colours = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    columns = np.array(colours).T
    if abs(np.linalg.det(columns)) < SMALLEST_DETERMINANT:
        return None
    to_xyz = columns * np.linalg.solve(columns, white)
    adapted = np.linalg.solve(BRADFORD, ((BRADFORD @ D50_XYZ) / (BRADFORD @ white))[:, np.newaxis] * BRADFORD) @ to_xyz
    if not np.isfinite(adapted).all() or np.abs(adapted).max() > LARGEST_XYZ:
        return None
    table = np.rint(np.clip(curve(np.linspace(0, 1, CURVE_POINTS)), 0, 1) * 65535).astype(">u2").tobytes()
    points = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), [*adapted.T, D50_XYZ], strict=True))
    bodies = {tag: b"XYZ \0\0\0\0" + np.rint(point * 65536).astype(">i4").tobytes() for tag, point in points.items()}
    bodies |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">I", CURVE_POINTS) + table)
    return _icc_file(bodies)


def _icc_file(bodies: dict[bytes, bytes]) -> bytes:
    """The file of an RGB display profile with these tags."""
    start = PROFILE_HEADER_BYTES + 4 + 12 * len(bodies)
    places: dict[bytes, int] = {}
    data = b""
    for body in bodies.values():
        if body not in places:
            places[body] = start + len(data)
            data += body
    tags = b"".join(tag + struct.pack(">II", places[body], len(body)) for tag, body in bodies.items())
    white = np.rint(D50_XYZ * 65536).astype(">i4").tobytes()
    head = struct.pack(">I4sI4s4s4s12x4s24x", start + len(data), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (
        (head + struct.pack(">I", 0) + white).ljust(PROFILE_HEADER_BYTES, b"\0")
        + struct.pack(">I", len(bodies))
        + tags
        + data
    )


def _srgb_curve(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _pq_curve(signal: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, over the reference white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return light * (PQ_PEAK / REFERENCE_WHITE)


def _hlg_curve(signal: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, of each channel alone, over the reference white."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return scene**HLG_SYSTEM_GAMMA * (HLG_PEAK / REFERENCE_WHITE)


CURVES: dict[int, Curve] = {  # H.273 TransferCharacteristics; BT.709 and its kin are shown as sRGB is, as in browsers
    **dict.fromkeys((1, 2, 6, 13, 14, 15), _srgb_curve),
    4: lambda signal: signal**2.2,
    5: lambda signal: signal**2.8,
    8: lambda signal: signal,
    16: _pq_curve,
    18: _hlg_curve,
}
