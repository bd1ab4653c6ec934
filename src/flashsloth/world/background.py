"""What lies under a picture's things, and textures: pictures that hold nothing the world has a name for.

In: a random stream; then a `Background` or a `Texture`, and a size. Out: that record; then a Pillow RGB picture.
Textures are clouds, blurs, hills, stripes, noise, gradients, scribbles: what a model should say about them is that it
can't tell.
"""

from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flashsloth.world.colors import RGB, luma, mix, sample_rgb
from flashsloth.world.fonts import faces, font
from flashsloth.world.scene import Background, BackgroundStyle, Box, Texture, TextureStyle
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
TEXTURES: tuple[TextureStyle, ...] = ("clouds", "hills", "blend", "noise", "stripes", "scribble", "blank")
TEXTURE_WEIGHTS = (30, 14, 18, 10, 10, 10, 8)
COLOR_COUNT = 3
OCTAVES, COARSEST = 4, (2, 6)  # layers of value noise; cells of the coarsest along a side
RIDGES, RIDGE_WAVES = (2, 5), 4  # of hills; sine waves in one ridge
NOISE_CELL = (1, 3)  # px
STRIPE_WAVES, STRIPE_BEND = (4, 14), 0.6
STROKES, STROKE_POINTS, STROKE_WIDTH = (3, 9), 6, (1, 3)
CHANNELS = 3


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


def sample_texture(rng: Random) -> Texture:
    """A texture: how it is made, of which colours, and the seed of the rest."""
    colors = tuple((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(COLOR_COUNT))
    return Texture(rng.choices(TEXTURES, TEXTURE_WEIGHTS)[0], colors, rng.randrange(2**32))


def paint_texture(texture: Texture, size: tuple[int, int]) -> Image.Image:
    """An RGB picture of `size` that shows `texture` alone."""
    rng = np.random.Generator(np.random.PCG64(texture.seed))
    if texture.style == "blank":
        return Image.new("RGB", size, texture.colors[0])
    if texture.style == "scribble":
        return _scribble(rng, texture, size)
    if texture.style == "hills":
        return _hills(rng, texture, size)
    if texture.style == "noise":
        cell = int(rng.integers(*NOISE_CELL, endpoint=True))
        heights = rng.random((-(-size[1] // cell), -(-size[0] // cell)))
        return _colored(np.kron(heights, np.ones((cell, cell)))[: size[1], : size[0]], texture)
    makers = {"clouds": _clouds, "blend": _blend, "stripes": _stripes}
    return _colored(makers[texture.style](rng, size), texture)


def _colored(heights: np.ndarray, texture: Texture) -> Image.Image:
    """Heights 0..1, float [height, width], as colours on the way through the texture's."""
    stops = np.linspace(0, 1, len(texture.colors))
    table = np.asarray(texture.colors, dtype=np.float64)
    channels = [np.interp(heights, stops, table[:, channel]) for channel in range(CHANNELS)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Value noise of several octaves, as photographs of skies, walls and water have it: float [height, width]."""
    coarsest = int(rng.integers(*COARSEST, endpoint=True))
    heights = np.zeros((size[1], size[0]))
    for octave in range(OCTAVES):
        cells = coarsest * 2**octave
        layer = Image.fromarray(rng.random((cells, cells)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        heights += np.asarray(layer) / 2**octave
    return _stretched(heights)


def _blend(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A few very soft colours, as of something out of focus: float [height, width]."""
    coarse = Image.fromarray(rng.random((3, 3)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return _stretched(np.asarray(coarse))


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Bent waves, as of wood, cloth or sand: float [height, width]."""
    waves = rng.uniform(*STRIPE_WAVES)
    angle, bend = rng.uniform(0, np.pi), STRIPE_BEND * rng.random()
    across = np.linspace(0, 1, size[0])[None, :] * np.cos(angle) + np.linspace(0, 1, size[1])[:, None] * np.sin(angle)
    return (np.sin(2 * np.pi * waves * (across + bend * _clouds(rng, size) / waves)) + 1) / 2


def _hills(rng: np.random.Generator, texture: Texture, size: tuple[int, int]) -> Image.Image:
    """Ridges of mixed colours before a sky."""
    canvas = _colored(np.repeat(np.linspace(0, 1, size[1])[:, None], size[0], axis=1), texture)
    pen = ImageDraw.Draw(canvas)
    count = int(rng.integers(*RIDGES, endpoint=True))
    across = np.linspace(0, 1, size[0])
    for ridge in range(count):
        share = rng.dirichlet(np.ones(len(texture.colors)))
        color = tuple(int(value) for value in share @ np.asarray(texture.colors, dtype=np.float64))
        line = np.zeros(size[0])
        for wave in range(1, RIDGE_WAVES + 1):
            line += rng.normal(0, 0.05) * np.sin(2 * np.pi * (wave * across + rng.random()))
        tops = size[1] * (0.35 + 0.55 * ridge / count + line)
        pen.polygon([(0, size[1]), *zip(range(size[0]), tops.tolist(), strict=True), (size[0], size[1])], fill=color)
    return canvas.filter(ImageFilter.BoxBlur(rng.uniform(0.0, 1.5)))


def _scribble(rng: np.random.Generator, texture: Texture, size: tuple[int, int]) -> Image.Image:
    """Open strokes without a shape."""
    canvas = Image.new("RGB", size, texture.colors[0])
    pen = ImageDraw.Draw(canvas)
    for stroke in range(int(rng.integers(*STROKES, endpoint=True))):
        knots = rng.random((STROKE_POINTS, 2)).cumsum(axis=0)
        knots = (knots + rng.random(2) * STROKE_POINTS) % 1.0 * size
        smooth = np.linspace(0, STROKE_POINTS - 1, 8 * STROKE_POINTS)
        points = [np.interp(smooth, np.arange(STROKE_POINTS), knots[:, axis]) for axis in range(2)]
        color = texture.colors[1 + stroke % (len(texture.colors) - 1)]
        width = int(rng.integers(*STROKE_WIDTH, endpoint=True))
        pen.line(list(zip(*(values.tolist() for values in points), strict=True)), color, width, joint="curve")
    return canvas


def _stretched(heights: np.ndarray) -> np.ndarray:
    """The same between 0 and 1."""
    low, high = heights.min(), heights.max()
    return (heights - low) / max(high - low, 1e-9)
