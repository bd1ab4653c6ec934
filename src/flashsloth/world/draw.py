"""Paints things, and wears pictures a little.

In: a `Thing` and the canvas. Out: the canvas, painted on by one of the renderers that give the same thing other looks.
Scale 1 is the plain jagged look of a one-bit brush, 3 and 4 are smooth (drawn larger, then reduced); the distance
renderer gives soft rims and shaded faces.

In: a random stream and a Pillow RGB picture. Out: a picture of the same size after what happens to pictures on their
way: JPEG, another size and back, blur, noise, brightness; one in three untouched.
"""

from __future__ import annotations

import math
from io import BytesIO
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from flashsloth.world.background import noise_window
from flashsloth.world.colors import RGB
from flashsloth.world.scene import Point, Thing, inner_outline

Renderer = Literal["jagged", "smooth", "smoother", "distance"]
RENDERERS: tuple[Renderer, ...] = ("jagged", "smooth", "smoother", "distance")
RENDERER_WEIGHTS = (22, 40, 13, 25)
SCALES = {"jagged": 1, "smooth": 3, "smoother": 4, "distance": 3}
CONVEX = ("square", "rectangle", "triangle", "hexagon", "pentagon", "diamond")
ROUND = ("circle", "oval")
UNTOUCHED_SHARE = 1 / 3
EFFECT_WEIGHTS = (34, 24, 12, 14, 16)  # JPEG, resize, blur, noise, brightness
SECOND_EFFECT_SHARE = 0.25
JPEG_QUALITY = (35, 95)
RESIZE_SCALE = (0.6, 1.4)
FILTERS = (
    Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS,
    Image.Resampling.BOX, Image.Resampling.HAMMING,
)  # fmt: skip
SMOOTH_FILTERS = FILTERS[1:4]
BLUR_RADIUS = (0.3, 0.9)
NOISE_STRENGTH = (2, 8)
BRIGHTNESS = (0.92, 1.08)


def draw_thing(
    canvas: Image.Image, thing: Thing, renderer: Renderer, softness: float = 1.0, shade: float = 0.0
) -> None:
    """Paints `thing`. `softness` (px) and `shade` (share of brightness lost downwards) matter to "distance" alone."""
    left, top = math.floor(thing.box.left) - 2, math.floor(thing.box.top) - 2
    size = math.ceil(thing.box.right) + 2 - left, math.ceil(thing.box.bottom) + 2 - top

    def mask(points: list[Point], depth: float) -> Image.Image:
        if renderer == "distance" and thing.shape in (*CONVEX, *ROUND):
            return _distance_mask(thing, points, depth, (left, top), size, softness)
        return _polygon_mask([points], (left, top), size, SCALES[renderer])

    if thing.stroke:
        hole = _inside(thing, thing.stroke)
        if renderer == "distance":
            outer, inner = np.asarray(mask(thing.outline, 0)), np.asarray(mask(hole, thing.stroke))
            line = Image.fromarray(outer - np.minimum(inner, outer))
        else:
            line = _polygon_mask([thing.outline, hole], (left, top), size, SCALES[renderer])
        canvas.paste(thing.rgb, (left, top, left + size[0], top + size[1]), line)
        return
    area = (left, top, left + size[0], top + size[1])
    if thing.edge:
        canvas.paste(thing.edge_rgb, area, mask(thing.outline, 0))
        canvas.paste(_face(thing.rgb, size, shade), area, mask(_inside(thing, thing.edge), thing.edge))
        return
    canvas.paste(_face(thing.rgb, size, shade), area, mask(thing.outline, 0))


def _inside(thing: Thing, depth: float) -> list[Point]:
    return inner_outline(thing.shape, thing.center, thing.width, thing.height, thing.rotation, depth)


def _face(rgb: RGB, size: tuple[int, int], shade: float) -> Image.Image | RGB:
    """One colour, or with `shade` a picture that grows darker downwards."""
    if not shade:
        return rgb
    light = np.linspace(1.0, 1.0 - shade, size[1])[:, None] * np.asarray(rgb)[None, :]  # [height, 3]
    column = Image.fromarray(light.astype(np.uint8)[:, None, :])
    return column.resize(size, Image.Resampling.NEAREST)


def _polygon_mask(outlines: list[list[Point]], origin: Point, size: tuple[int, int], scale: int) -> Image.Image:
    """A mask "L": the first outline filled, the second cut out of it; drawn `scale` times larger and reduced."""
    mask = Image.new("L", (size[0] * scale, size[1] * scale))
    pen = ImageDraw.Draw(mask)
    x0, y0 = origin
    for points, fill in zip(outlines, (255, 0), strict=False):
        pen.polygon([((x - x0) * scale, (y - y0) * scale) for x, y in points], fill=fill)
    return mask.reduce(scale) if scale > 1 else mask


def _distance_mask(
    thing: Thing, points: list[Point], depth: float, origin: tuple[int, int], size: tuple[int, int], softness: float
) -> Image.Image:
    """A mask "L" from each pixel's signed distance to the outline: 255 inside, 0 outside, a ramp `softness` px wide."""
    x = np.arange(size[0], dtype=np.float32) + (origin[0] + 0.5)
    y = np.arange(size[1], dtype=np.float32) + (origin[1] + 0.5)
    if thing.shape in ROUND:
        gap = _ellipse_distance(thing, depth, x, y)
    else:
        gap = np.full((size[1], size[0]), -np.inf, dtype=np.float32)
        last_x, last_y = points[-1]
        for px, py in points:
            edge_x, edge_y = px - last_x, py - last_y
            length = math.hypot(edge_x, edge_y) or 1.0
            normal_x, normal_y = edge_y / length, -edge_x / length
            across = (normal_x * (x - px))[None, :] + (normal_y * (y - py))[:, None]
            np.maximum(gap, across, out=gap)
            last_x, last_y = px, py
    gap *= -255.0 / softness
    gap += 127.5
    return Image.fromarray(np.clip(gap, 0, 255).astype(np.uint8))


def _ellipse_distance(thing: Thing, depth: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float [height, width]: near the border of the ellipse, about the distance to it in pixels."""
    cos, sin = math.cos(math.radians(thing.rotation)), math.sin(math.radians(thing.rotation))
    dx, dy = (x - thing.center[0])[None, :], (y - thing.center[1])[:, None]
    radius_x, radius_y = max(thing.width / 2 - depth, 1.0), max(thing.height / 2 - depth, 1.0)
    along, across = (cos * dx + sin * dy) / radius_x, (cos * dy - sin * dx) / radius_y
    radius = np.sqrt(along * along + across * across)
    slope = np.sqrt((along / radius_x) ** 2 + (across / radius_y) ** 2) / np.maximum(radius, 1e-6)
    return ((radius - 1) / np.maximum(slope, 1e-6)).astype(np.float32)


def apply_effects(rng: Random, image: Image.Image) -> Image.Image:
    """`image`, untouched or after one or two random effects."""
    if rng.random() < UNTOUCHED_SHARE:
        return image
    effects = (jpeg, resized_and_back, blurred, noisy, brightened)
    for _ in range(2 if rng.random() < SECOND_EFFECT_SHARE else 1):
        image = rng.choices(effects, EFFECT_WEIGHTS)[0](rng, image)
    return image


def jpeg(rng: Random, image: Image.Image) -> Image.Image:
    """One JPEG round trip."""
    file = BytesIO()
    image.save(file, "JPEG", quality=rng.randint(*JPEG_QUALITY))
    with Image.open(file) as decoded:
        return decoded.convert("RGB")


def resized_and_back(rng: Random, image: Image.Image) -> Image.Image:
    """Another size, then the first one again, each with its own filter."""
    scale = rng.uniform(*RESIZE_SCALE)
    other = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(other, rng.choice(FILTERS)).resize(image.size, rng.choice(SMOOTH_FILTERS))


def blurred(rng: Random, image: Image.Image) -> Image.Image:
    """A slight blur."""
    return image.filter(ImageFilter.BoxBlur(rng.uniform(*BLUR_RADIUS)))


def noisy(rng: Random, image: Image.Image) -> Image.Image:
    """Slight noise, each channel by itself."""
    noise = noise_window(image.size, rng.randint(*NOISE_STRENGTH), rng.randrange(1000))
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.int16) + noise, 0, 255).astype(np.uint8))


def brightened(rng: Random, image: Image.Image) -> Image.Image:
    """A little lighter or darker."""
    factor = rng.uniform(*BRIGHTNESS)
    return image.point([min(255, round(value * factor)) for value in range(256)] * 3)
