"""From a user's picture to its features.

In: a path, bytes, data URL, PIL image, array or tensor, a list of those, or None. Out: their features.

Legend: N pictures, W views a picture: one for its whole view alone, or all that the model takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad

from flashsloth.inference.picture_cache import PictureCache, WeightsState
from flashsloth.media import ImagePolicy, open_pictures
from flashsloth.media.views import PictureViews, digest
from flashsloth.model.configuration_flashsloth import views_of
from flashsloth.model.loading.non_finite import require_finite
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

Picture = Any
"""A path, bytes, data URL, PIL image, array or tensor; a list or tuple of those; or None."""
PICTURES_AT_A_TIME = 8
"""Pictures in one pass of the encoder; a pass of more takes more memory and is no faster a picture."""


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one or more pictures.

    Attributes:
        features: of all N pictures, in order.
        identity: equal only for the same pixels, prepared in the same way, in the same order.
        views: how many each picture has.
    """

    features: FlashSlothImageFeatures
    identity: tuple[Hashable, ...]
    views: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class PreparedPictures:
    """Pictures that the encoder has yet to run on, if it has to at all.

    Attributes:
        keys: what each picture is: equal only for the same pixels, prepared in the same way, at the same resolution.
        made: of each picture its views, float [1, W, 3, size, size]; or its features, once they are known.
        sizes: (width, height) of each, as it was opened.
        views: W of each.
    """

    keys: list[Hashable] = field(default_factory=list)
    made: list[torch.Tensor | FlashSlothImageFeatures] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    views: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def unencoded(self) -> int:
        """How many pictures the encoder has to run on."""
        return sum(isinstance(one, torch.Tensor) for one in self.made)

    @property
    def view_bytes(self) -> int:
        """Memory of the views that the encoder has to run on."""
        return sum(one.nbytes for one in self.made if isinstance(one, torch.Tensor))

    @property
    def features(self) -> ImageFeatures:
        """Of all pictures, once the encoder has run."""
        known = [one for one in self.made if not isinstance(one, torch.Tensor)]
        assert len(known) == len(self)
        return ImageFeatures(_join(known, self.views), tuple(self.keys), tuple(self.views))


class ImageEncoder:
    """Opens pictures, makes their views and runs the encoder on those that are not known yet.

    Attributes:
        encode: views on the processor, float [N, W, 3, size, size], to features; an accelerator puts its own here.
    """

    def __init__(self, model: FlashSlothForConditionalGeneration, image_processor: Any, pictures: PictureCache) -> None:
        self._model, self._image_processor, self._pictures = model, image_processor, pictures
        self.weights_state = WeightsState(model)
        self.encode: Callable[[torch.Tensor], FlashSlothImageFeatures] = self._encode

    def open(self, picture: Picture, policy: ImagePolicy) -> list[Image.Image]:
        """The pictures meant, decoded.

        Raises:
            PictureError: where one cannot be used.
        """
        return open_pictures(picture, image_policy=policy)

    def prepare(self, pictures: list[Image.Image], resolution: str | None = None) -> PreparedPictures:
        """All that the processor has to do for opened pictures; threads may do so at the same time.

        Args:
            pictures: decoded.
            resolution: "standard" for their whole views alone; None or "hd" for all views.
        """
        views = views_of(resolution, self._image_processor.image_grid)
        keys = [self._key(digest(picture), views) for picture in pictures]
        made = [
            self._image_processor(images=[picture], resolution=resolution, return_tensors="pt")["pixel_values"]
            if features is None
            else features
            for features, picture in zip(map(self._known(), keys), pictures, strict=True)
        ]
        return PreparedPictures(keys, made, [picture.size for picture in pictures], [views] * len(pictures))

    def prepare_views(self, picture: PictureViews, resolution: str | None = None) -> PreparedPictures:
        """As :meth:`prepare`, for one picture whose views another process has made by `view_settings`."""
        views = views_of(resolution, self._image_processor.image_grid)
        if len(picture.views) != views:
            raise ValueError(f"the picture has {len(picture.views)} views, expected {views} at that resolution")
        key = self._key(picture.digest, views)
        features = self._known()(key)
        made = self._image_processor.normalised(picture.views) if features is None else features
        return PreparedPictures([key], [made], [picture.size], [views])

    def prepare_known(
        self, digest: bytes, size: tuple[int, int], resolution: str | None = None
    ) -> PreparedPictures | None:
        """As :meth:`prepare`, for one picture by its digest and size, if its features are kept; None if they are not.

        What is returned holds the features: they may be dropped meanwhile.
        """
        views = views_of(resolution, self._image_processor.image_grid)
        key = self._key(digest, views)
        features = self._known()(key)
        return None if features is None else PreparedPictures([key], [features], [size], [views])

    def encode_prepared(self, sets: list[PreparedPictures]) -> list[ImageFeatures | None]:
        """Features of sets of pictures, all that are new in the same passes; every set then holds them.

        Raises:
            NonFiniteError: where the model computes NaN or infinity.
        """
        made = {key: one for prepared in sets for key, one in zip(prepared.keys, prepared.made, strict=True)}
        new = {key: one for key, one in made.items() if isinstance(one, torch.Tensor)}
        weights = self.weights_state()
        for some in _passes(new):
            for key, features in zip(some, self._encode_pass(torch.cat([new[key] for key in some])), strict=True):
                made[key] = features
                size = sum(tensor.numel() * tensor.element_size() for tensor in features.values())
                self._pictures.put(("features", weights, key), features, size)
        for prepared in sets:
            prepared.made[:] = [made[key] for key in prepared.keys]
        return [one.features if len(one) else None for one in sets]

    def _key(self, digest: bytes, views: int) -> Hashable:
        """What a picture is under which its features are kept: its pixels, and how they are prepared."""
        return digest, f"{type(self._image_processor).__name__} {vars(self._image_processor)} {views} views"

    def _known(self) -> Callable[[Hashable], FlashSlothImageFeatures | None]:
        """The features of a key with the weights as they are now; None where they are not kept."""
        weights = self.weights_state()
        return lambda key: self._pictures.get(("features", weights, key))

    def _encode(self, views: torch.Tensor) -> FlashSlothImageFeatures:
        return self._model.get_image_features(views.to(self._model.device))

    @torch.no_grad()
    def _encode_pass(self, views: torch.Tensor) -> list[FlashSlothImageFeatures]:
        """The features of each picture of one pass."""
        features = self.encode(views)
        if views.device == features.pooler_output.device:  # an accelerator is not waited for: its logits are checked
            for tensor in (features.last_hidden_state, features.pooler_output):
                require_finite(tensor, self._model, partial(self._encode, views))
        return [_picked(features, number) for number in range(len(views))]


def _passes(new: dict[Hashable, torch.Tensor]) -> Iterator[list[Hashable]]:
    """Keys of pictures that the encoder takes in one pass: of as many views, and not too many."""
    groups: dict[torch.Size, list[Hashable]] = {}
    for key, views in new.items():
        groups.setdefault(views.shape[1:], []).append(key)
    for keys in groups.values():
        for start in range(0, len(keys), PICTURES_AT_A_TIME):
            yield keys[start : start + PICTURES_AT_A_TIME]


def join_prepared(sets: Sequence[PreparedPictures]) -> PreparedPictures:
    """Pictures of several sets as one set, in order."""
    return PreparedPictures(
        [key for one in sets for key in one.keys],
        [made for one in sets for made in one.made],
        [size for one in sets for size in one.sizes],
        [views for one in sets for views in one.views],
    )


def picture_inputs(shown: Sequence[ImageFeatures | None], device: torch.device) -> dict[str, Any]:
    """The model's inputs for the pictures of a pass's rows, in order; nothing where no row has any."""
    parts = [(row, pictures) for row, pictures in enumerate(shown) if pictures is not None]
    if not parts:
        return {}
    rows = [row for row, pictures in parts for _ in range(len(pictures))]
    views = [count for _, pictures in parts for count in pictures.views]
    joined = _join([pictures.features for _, pictures in parts], views)
    return {"mm_encoder_outputs": {"image": joined}, "image_row": torch.tensor(rows, dtype=torch.long, device=device)}


def picture_key(picture: Picture) -> Hashable:
    """Equal for two arguments that surely mean the same picture: the same path or text, the same object."""
    if isinstance(picture, list | tuple):
        return tuple(picture_key(part) for part in picture)
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return None if picture is None else id(picture)


def _join(parts: Sequence[FlashSlothImageFeatures], views: Sequence[int]) -> FlashSlothImageFeatures:
    """Pictures of several sets, in order, of which each has so many views; zeros after those of the ones with fewer."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for name in ("last_hidden_state", "pooler_output"):
        tensors = [part[name] for part in parts]
        longest = max(tensor.shape[1] for tensor in tensors)
        padded = [pad(tensor, (0, 0, 0, longest - tensor.shape[1])) for tensor in tensors]
        joined[name] = torch.cat(padded)
    if len(set(views)) > 1:
        joined["image_views"] = torch.tensor(views, device=joined["pooler_output"].device)
    return FlashSlothImageFeatures(**joined)


def _picked(features: FlashSlothImageFeatures, number: int) -> FlashSlothImageFeatures:
    """One picture of a set, in memory of its own, so that keeping it does not keep the others."""
    alone = len(features.pooler_output) == 1
    part: dict[str, Any] = {
        name: tensor if alone else tensor[number : number + 1].clone() for name, tensor in features.items()
    }
    return FlashSlothImageFeatures(**part)
