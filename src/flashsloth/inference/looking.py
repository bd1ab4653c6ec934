"""From a user's picture to what the model sees in it.

In: a path, bytes, data URL, PIL image, array or tensor, a list of those, or None. Out: the features of its pictures.

Legend: N pictures, W views a picture.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Any

import torch
from PIL import Image

from flashsloth.media import ImagePolicy, open_pictures
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

Picture = Any
"""A path, bytes, data URL, PIL image, array or tensor; a list or tuple of those; or None."""
PICTURES_AT_A_TIME = 8
"""Pictures in one pass of the encoder; a pass of more takes more memory and is no faster a picture."""


class Looker:
    """Opens pictures, makes their views and runs the encoder on them."""

    def __init__(self, model: FlashSlothForConditionalGeneration, image_processor: Any) -> None:
        self._model = model
        self._image_processor = image_processor

    def open(self, picture: Picture, policy: ImagePolicy) -> list[Image.Image]:
        """The pictures meant, decoded.

        Raises:
            PictureError: where one cannot be used.
        """
        return open_pictures(picture, image_policy=policy)

    @torch.no_grad()
    def look(self, pictures: list[Image.Image]) -> FlashSlothImageFeatures | None:
        """Features of opened pictures; None of none."""
        if not pictures:
            return None
        parts = []
        for start in range(0, len(pictures), PICTURES_AT_A_TIME):
            some = pictures[start : start + PICTURES_AT_A_TIME]
            views = self._image_processor(images=some, return_tensors="pt")["pixel_values"]  # [N, W, 3, size, size]
            parts.append(self._model.get_image_features(views.to(self._model.device)))
        return join_features(parts)

    def look_each(self, sets: list[list[Image.Image]]) -> list[FlashSlothImageFeatures | None]:
        """As :meth:`look` for several sets of pictures, all of them in the same passes."""
        features = self.look([picture for pictures in sets for picture in pictures])
        parts: list[FlashSlothImageFeatures | None] = []
        start = 0
        for pictures in sets:
            parts.append(_part_of(features, start, start + len(pictures)) if features and pictures else None)
            start += len(pictures)
        return parts


def join_features(parts: list[FlashSlothImageFeatures]) -> FlashSlothImageFeatures:
    """Pictures of several sets as one set, in order."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return FlashSlothImageFeatures(**joined)


def _part_of(features: FlashSlothImageFeatures, start: int, stop: int) -> FlashSlothImageFeatures:
    """Some pictures of a set, in order."""
    part: dict[str, Any] = {name: tensor[start:stop] for name, tensor in features.items()}
    return FlashSlothImageFeatures(**part)


def count_pictures(features: FlashSlothImageFeatures | None) -> int:
    """N of a set of pictures; 0 of None."""
    return 0 if features is None or features.pooler_output is None else len(features.pooler_output)


def picture_key(picture: Picture) -> Hashable:
    """Equal for two arguments that surely mean the same picture: the same path or text, the same object."""
    if isinstance(picture, list | tuple):
        return tuple(picture_key(part) for part in picture)
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return None if picture is None else id(picture)
