"""What happens to pictures on their way: JPEG, another size and back, blur, noise, brightness.

In: a random stream and a Pillow RGB picture. Out: a picture of the same size; one in three untouched.
"""

from io import BytesIO
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from flashsloth.world.background import noise_window

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
