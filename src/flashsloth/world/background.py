"""What lies under a picture's things: chosen here, and painted here.

In: a random stream; then a `Background` and a size. Out: a `Background`; then a Pillow RGB picture.
"""

from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from flashsloth.world.colors import RGB, luma, mix, sample_rgb
from flashsloth.world.fonts import faces, font
from flashsloth.world.scene import Background, BackgroundStyle, Box
from flashsloth.world.vocabulary import COLORS

NOISE_TILE = 512  # px: one tile of noise is made once; pictures take their own window of it
NOISE_SEED = 20412
DARK_LUMA = 127  # a ground is dark below it: lines on it are light
WHITE: RGB = (255, 255, 255)
BLACK: RGB = (0, 0, 0)
STYLES: tuple[BackgroundStyle, ...] = ("plain", "gradient", "radial", "noise", "grid")
STYLE_WEIGHTS = (74, 8, 3, 8, 7)
PLAINER_SHARE = 0.8  # of the grounds under charts are plain for sure
GROUND_WEIGHTS = {"white": 50, "light": 22, "black": 8, "dark": 6, "gray": 6, "tinted": 8}
HINT, DARKNESS = (0.03, 0.16), (0.7, 0.85)  # share of another colour in a light ground, of black in a dark one
GRADIENT_CONTRAST, GRID_CONTRAST = (0.06, 0.22), (0.08, 0.16)  # share of black or white in the second colour
NOISE_STRENGTH, GRID_SPACING = (3, 9), (8, 32)  # standard deviation; px
AXES_TICKS, AXES_SIZE, LEAST_AXES_SIZE = (3, 6), 0.04, 8  # ticks; font size over the longer side, and in px
TICK_LENGTH = 3  # px
ANGLES = (0, 90, 180, 270)
TINTED = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan", "brown")


def sample_background(rng: Random, plainer: bool = False) -> Background:
    """A background: mostly white or light and plain; `plainer` keeps it light, as for charts."""
    rgb, name = _sample_ground(rng, plainer)
    style = "plain" if plainer and rng.random() < PLAINER_SHARE else rng.choices(STYLES, STYLE_WEIGHTS)[0]
    second = rgb
    if style in ("gradient", "radial", "grid"):
        away = WHITE if luma(rgb) < DARK_LUMA else BLACK
        second = mix(rgb, away, rng.uniform(*(GRID_CONTRAST if style == "grid" else GRADIENT_CONTRAST)))
    strength = rng.randint(*(NOISE_STRENGTH if style == "noise" else GRID_SPACING))
    return Background(style, rgb, second, name, rng.choice(ANGLES), strength)


def _sample_ground(rng: Random, plainer: bool) -> tuple[RGB, str | None]:
    """A ground colour, and its name where it has one."""
    grounds = ("white", "light") if plainer else tuple(GROUND_WEIGHTS)
    ground = rng.choices(grounds, [GROUND_WEIGHTS[name] for name in grounds])[0]
    if ground == "white":
        return WHITE, "white"
    if ground == "light":  # off-white with a hint of any colour
        return mix(WHITE, sample_rgb(rng, rng.choice((*TINTED, "gray"))), rng.uniform(*HINT)), None
    if ground == "dark":
        return mix(sample_rgb(rng, rng.choice(TINTED)), BLACK, rng.uniform(*DARKNESS)), None
    name = ground if ground in COLORS else rng.choice(TINTED)
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


def draw_axes(canvas: Image.Image, inside: Box, background: Background, rng: Random) -> None:
    """Paints a plot's thin frame around `inside`, with ticks and small numbers, as plotting libraries do."""
    left, top, right, bottom = (round(side) for side in (inside.left, inside.top, inside.right, inside.bottom))
    ink = WHITE if luma(background.rgb) < DARK_LUMA else BLACK
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left, top, right, bottom), outline=ink)
    shape = font(faces()[0], max(LEAST_AXES_SIZE, round(AXES_SIZE * max(canvas.size))))
    ticks = rng.randint(*AXES_TICKS)
    for k in range(ticks):
        x, y = left + (right - left) * k / (ticks - 1), bottom + (top - bottom) * k / (ticks - 1)
        pen.line((x, bottom, x, bottom + TICK_LENGTH), ink)
        pen.line((left - TICK_LENGTH, y, left, y), ink)
        number = str(2 * k)
        pen.text((x, bottom + TICK_LENGTH + 1), number, fill=ink, font=shape, anchor="mt")
        pen.text((left - TICK_LENGTH - 1, y), number, fill=ink, font=shape, anchor="rm")


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
