"""Pictures that hold nothing the world has a name for: clouds, blurs, hills, stripes, noise, gradients, scribbles.

In: a random stream; then a `Texture` and a size. Out: a `Texture`; then a Pillow RGB picture. What a model should say
about them is that it can't tell.
"""

from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flashsloth.world.scene import Texture, TextureStyle

STYLES: tuple[TextureStyle, ...] = ("clouds", "hills", "blend", "noise", "stripes", "scribble", "blank")
STYLE_WEIGHTS = (30, 14, 18, 10, 10, 10, 8)
COLOR_COUNT = 3
OCTAVES, COARSEST = 4, (2, 6)  # layers of value noise; cells of the coarsest along a side
RIDGES, RIDGE_WAVES = (2, 5), 4  # of hills; sine waves in one ridge
NOISE_CELL = (1, 3)  # px
STRIPE_WAVES, STRIPE_BEND = (4, 14), 0.6
STROKES, STROKE_POINTS, STROKE_WIDTH = (3, 9), 6, (1, 3)
CHANNELS = 3


def sample_texture(rng: Random) -> Texture:
    """A texture: how it is made, of which colours, and the seed of the rest."""
    colors = tuple((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(COLOR_COUNT))
    return Texture(rng.choices(STYLES, STYLE_WEIGHTS)[0], colors, rng.randrange(2**32))


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
