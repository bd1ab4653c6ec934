"""A picture's pixels as an encoder wants them, for peers whose processors need torchvision.

In: a PIL picture, RGB, already resized. Out: float32 [height, width, 3], normalized by channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

MAX_CHANNEL = 255


def normalized(picture: Image.Image, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """(pixel / 255 - mean) / deviation."""
    scaled = np.asarray(picture, dtype=np.float32) / MAX_CHANNEL
    normal = (scaled - np.array(mean, dtype=np.float32)) / np.array(deviation, dtype=np.float32)
    return torch.from_numpy(normal)
