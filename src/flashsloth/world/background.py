"""What lies under a picture's things: chosen here, and painted here.

In: a random stream; then a `Background` and a size. Out: a `Background`; then a Pillow RGB picture.
"""

from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from flashsloth.world.colors import RGB, luma, mix, sample_rgb
from flashsloth.world.fonts import faces, font
from flashsloth.world.scene import Background, Box

NOISE_TILE = 512  # px: one tile of noise is made once; pictures take their own window of it
NOISE_SEED = 20412
DARK_LUMA = 110  # below it, what is written on a ground is white
WHITE: RGB = (255, 255, 255)
STYLES = ("plain", "gradient", "radial", "noise", "grid")
STYLE_WEIGHTS = (74, 8, 3, 8, 7)
TINTED = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "brown")


def sample_background(rng: Random, plainer: bool = False) -> Background:
    """A background: mostly white or light and plain; `plainer` keeps it light, as for charts."""
    rgb, name = _sample_ground(rng, plainer)
    style = "plain" if plainer and rng.random() < 0.8 else rng.choices(STYLES, STYLE_WEIGHTS)[0]
    second = rgb
    if style in ("gradient", "radial"):
        second = mix(rgb, (0, 0, 0) if sum(rgb) > 380 else WHITE, rng.uniform(0.06, 0.22))
    elif style == "grid":
        second = mix(rgb, (0, 0, 0) if sum(rgb) > 380 else WHITE, rng.uniform(0.08, 0.16))
    strength = rng.randint(3, 9) if style == "noise" else rng.randint(8, 32)
    return Background(style, rgb, second, name, rng.choice((0, 90, 180, 270)), strength)  # type: ignore[arg-type]


def _sample_ground(rng: Random, plainer: bool) -> tuple[RGB, str | None]:
    draw = rng.random()
    if draw < 0.5:
        return WHITE, "white"
    if draw < 0.72 or plainer:  # off-white with a hint of any colour
        return mix(WHITE, sample_rgb(rng, rng.choice((*TINTED, "gray"))), rng.uniform(0.03, 0.16)), None
    if draw < 0.8:
        return sample_rgb(rng, "black"), "black"
    if draw < 0.86:
        return mix(sample_rgb(rng, rng.choice(TINTED)), (0, 0, 0), rng.uniform(0.7, 0.85)), None
    if draw < 0.92:
        return sample_rgb(rng, "gray"), "gray"
    name = rng.choice(TINTED)
    return sample_rgb(rng, name), name


def paint_background(background: Background, size: tuple[int, int]) -> Image.Image:
    """An RGB picture of `size` that shows `background` alone."""
    style = background.style
    if style in ("gradient", "radial"):
        ramp = _ramp(style, background.angle).resize(size, Image.Resampling.BILINEAR)
        return Image.composite(
            Image.new("RGB", size, background.second_rgb), Image.new("RGB", size, background.rgb), ramp
        )
    if style == "noise":
        ground = np.asarray(background.rgb, dtype=np.int16) + noise_window(size, background.strength, background.angle)
        return Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    canvas = Image.new("RGB", size, background.rgb)
    if style == "grid":
        pen = ImageDraw.Draw(canvas)
        for x in range(background.strength // 2, size[0], background.strength):
            pen.line((x, 0, x, size[1]), background.second_rgb)
        for y in range(background.strength // 2, size[1], background.strength):
            pen.line((0, y, size[0], y), background.second_rgb)
    return canvas


def draw_axes(canvas: Image.Image, inside: Box, rng: Random) -> None:
    """Paints a plot's thin frame around `inside`, with ticks and small numbers, as plotting libraries do."""
    left, top, right, bottom = (round(side) for side in (inside.left, inside.top, inside.right, inside.bottom))
    ground = canvas.getpixel((0, 0))
    ink = (255, 255, 255) if isinstance(ground, tuple) and luma(ground[:3]) < DARK_LUMA else (0, 0, 0)  # type: ignore[arg-type]
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left, top, right, bottom), outline=ink)
    shape = font(faces()[0], max(8, round(0.04 * max(canvas.size))))
    ticks = rng.randint(3, 6)
    for k in range(ticks):
        x, y = left + (right - left) * k / (ticks - 1), bottom + (top - bottom) * k / (ticks - 1)
        pen.line((x, bottom, x, bottom + 3), ink)
        pen.line((left - 3, y, left, y), ink)
        number = str(2 * k) if rng.random() < 0.9 else ""
        pen.text((x, bottom + 4), number, fill=ink, font=shape, anchor="mt")
        pen.text((left - 4, y), number, fill=ink, font=shape, anchor="rm")


@cache
def _ramp(style: str, angle: int) -> Image.Image:
    ramp = Image.linear_gradient("L") if style == "gradient" else Image.radial_gradient("L")
    return ramp.rotate(angle)


@cache
def _noise_tile() -> np.ndarray:
    """int8 [NOISE_TILE, NOISE_TILE, 3] of normal noise, standard deviation 16."""
    noise = np.random.Generator(np.random.PCG64(NOISE_SEED)).standard_normal((NOISE_TILE, NOISE_TILE, 3))
    return np.clip(noise * 16, -127, 127).astype(np.int8)


def noise_window(size: tuple[int, int], strength: int, place: int) -> np.ndarray:
    """int16 [height, width, 3]: a window of noise with a standard deviation of `strength`, taken at `place`."""
    room_x, room_y = NOISE_TILE - size[0], NOISE_TILE - size[1]
    x, y = place * 7 % max(room_x, 1), place * 13 % max(room_y, 1)
    window = _noise_tile()[y : y + size[1], x : x + size[0]].astype(np.int16)
    return window * strength // 16
