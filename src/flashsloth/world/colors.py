"""What a colour's name covers: named anchors and ranges of hue, saturation and value, chosen so that names never blur.

In: a random stream and a colour's name. Out: an RGB triple of 0..255. Anchors are the colours that people really draw
with (CSS names, matplotlib's cycle, X11 and ImageMagick names, common web palettes); ranges fill the space around them.
"""

import colorsys
from dataclasses import dataclass
from functools import cache
from random import Random

from flashsloth.world.vocabulary import COLOR_WEIGHTS, COLORS

RGB = tuple[int, int, int]

ANCHOR_SHARE = 0.55  # of the colours drawn are an anchor itself; the rest come from the range
MIN_CONTRAST = 110.0  # least `distance` between a thing and what lies under it
MIN_LUMA = 18.0  # least difference in brightness, for colours less than STARK_CONTRAST apart
STARK_CONTRAST = 250.0
LEGIBLE_CONTRAST = 150.0  # the same for writing
LEGIBLE_LUMA = 46.0  # least difference in brightness between writing and what lies under it
MAX_CHANNEL = 255


@dataclass(frozen=True, slots=True)
class ColorRange:
    """One name's colours: exact `anchors`, and spans of hue (degrees), saturation and value (0..1)."""

    anchors: tuple[str, ...]
    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


RANGES = {
    "red": ColorRange(
        ("ff0000", "ff0000", "ff0000", "d62728", "dc143c", "e53935", "f44336", "e74c3c", "dc3545", "ee2222", "cc0000"),
        (-7, 7), (0.78, 1.0), (0.78, 1.0)),
    "green": ColorRange(
        ("008000", "008000", "00ff00", "00ff00", "2ca02c", "32cd32", "228b22", "2e8b57", "3cb371", "006400", "4caf50",
         "28a745", "2ecc71", "27ae60", "00cc00", "22aa22"),
        (98, 148), (0.55, 1.0), (0.4, 1.0)),
    "blue": ColorRange(
        ("0000ff", "0000ff", "0000ff", "1f77b4", "1f77b4", "4169e1", "1e90ff", "4682b4", "000080", "00008b", "0000cd",
         "6495ed", "007bff", "2196f3", "3498db", "87ceeb", "2222ee", "191970"),
        (208, 240), (0.6, 1.0), (0.5, 1.0)),
    "yellow": ColorRange(
        ("ffff00", "ffff00", "ffff00", "ffd700", "ffeb3b", "ffdd00", "fde047", "eedd22", "f1e015"),
        (50, 60), (0.7, 1.0), (0.88, 1.0)),
    "orange": ColorRange(
        ("ffa500", "ffa500", "ff8c00", "ff7f0e", "ff7f0e", "ff9800", "fd7e14", "ff8800", "f39c12", "e67e22"),
        (27, 38), (0.82, 1.0), (0.92, 1.0)),
    "purple": ColorRange(
        ("800080", "800080", "800080", "9467bd", "9370db", "663399", "9400d3", "8a2be2", "9932cc", "4b0082", "a020f0",
         "6f42c1", "9b59b6", "9c27b0", "8e44ad"),
        (270, 298), (0.5, 1.0), (0.45, 0.75)),
    "black": ColorRange(("000000", "000000", "000000", "111111", "1a1a1a", "212529"), (0, 360), (0.0, 0.3), (0.0, 0.1)),
    "gray": ColorRange(
        ("808080", "808080", "7f7f7f", "7f7f7f", "a9a9a9", "696969", "708090", "7e7e7e", "bebebe", "9e9e9e", "888888",
         "6c757d", "c0c0c0"),
        (0, 360), (0.0, 0.06), (0.4, 0.7)),
    "white": ColorRange(("ffffff", "ffffff", "ffffff", "f8f8f8", "f5f5f5"), (0, 360), (0.0, 0.02), (0.96, 1.0)),
    "pink": ColorRange(
        ("ffc0cb", "ffc0cb", "ffb6c1", "ff69b4", "ff69b4", "e377c2", "ff99cc"),
        (322, 345), (0.3, 0.6), (0.93, 1.0)),
    "brown": ColorRange(
        ("a52a2a", "8b4513", "8b4513", "8c564b", "a0522d", "795548", "654321", "704214"),
        (16, 28), (0.5, 0.85), (0.36, 0.58)),
    "cyan": ColorRange(
        ("00ffff", "00ffff", "17becf", "40e0d0", "00ced1", "00e5ff"),
        (177, 187), (0.65, 1.0), (0.82, 1.0)),
}  # fmt: skip


@cache
def parse(code: str) -> RGB:
    """The RGB triple of six hexadecimal digits."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def sample_rgb(rng: Random, name: str) -> RGB:
    """One RGB triple that people call `name`."""
    colors = RANGES[name]
    if rng.random() < ANCHOR_SHARE:
        return parse(rng.choice(colors.anchors))
    hue, saturation, value = (rng.uniform(*span) for span in (colors.hue, colors.saturation, colors.value))
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * MAX_CHANNEL), round(green * MAX_CHANNEL), round(blue * MAX_CHANNEL)


def distance(first: RGB, second: RGB) -> float:
    """How different two colours look: the "redmean" weighted distance, 0 to about 765."""
    mean_red = (first[0] + second[0]) / 2
    red, green, blue = first[0] - second[0], first[1] - second[1], first[2] - second[2]
    return (
        (2 + mean_red / 256) * red * red + 4 * green * green + (2 + (MAX_CHANNEL - mean_red) / 256) * blue * blue
    ) ** 0.5


def luma(rgb: RGB) -> float:
    """Perceived brightness, 0..255 (ITU-R BT.601)."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def legible(rgb: RGB, under: tuple[RGB, ...]) -> bool:
    """Whether writing in `rgb` can be read easily on every colour in `under`."""
    return all(
        distance(rgb, other) >= LEGIBLE_CONTRAST and abs(luma(rgb) - luma(other)) >= LEGIBLE_LUMA for other in under
    )


def sample_legible(rng: Random, under: tuple[RGB, ...], names: tuple[str, ...]) -> tuple[str, RGB] | None:
    """A name out of `names` and one of its colours that can be read on `under`; None where chance finds none."""
    for _ in range(16):
        name = rng.choices(names, [_WEIGHT_OF[name] for name in names])[0]
        rgb = sample_rgb(rng, name)
        if legible(rgb, under):
            return name, rgb
    return None


def sample_contrasting(
    rng: Random, under: tuple[RGB, ...], names: tuple[str, ...] = COLORS, contrast: float = MIN_CONTRAST
) -> tuple[str, RGB]:
    """A name out of `names` and one of its colours, at least `contrast` away from every colour in `under`.

    The names' usual weights hold. Where the names given all fail, black or white, whichever is farther, is returned.
    """
    weights = WEIGHTS if names is COLORS else [_WEIGHT_OF[name] for name in names]
    for _ in range(12):
        name = rng.choices(names, weights)[0]
        rgb = sample_rgb(rng, name)
        if all(_stands_out(rgb, other, contrast) for other in under):
            return name, rgb
    extremes: tuple[tuple[str, RGB], ...] = (("black", (0, 0, 0)), ("white", (255, 255, 255)))
    return max(extremes, key=lambda pair: min(distance(pair[1], other) for other in under))


def _stands_out(rgb: RGB, other: RGB, contrast: float) -> bool:
    apart = distance(rgb, other)
    return apart >= contrast and (apart >= STARK_CONTRAST or abs(luma(rgb) - luma(other)) >= MIN_LUMA)


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """`first` with `share` (0..1) of `second` in it."""
    red, green, blue = (round(one + (other - one) * share) for one, other in zip(first, second, strict=True))
    return red, green, blue


WEIGHTS = list(COLOR_WEIGHTS)
_WEIGHT_OF = dict(zip(COLORS, COLOR_WEIGHTS, strict=True))
