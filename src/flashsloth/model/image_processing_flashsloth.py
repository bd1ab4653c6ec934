"""From pictures to views: what the vision encoder is fed.

In: pictures (PIL, or what `flashsloth.media` opens: paths, arrays, tensors, ...), of any size.
Out: `pixel_values` float32 [N, W, 3, size, size], W views a picture. Where pictures are asked for at unlike
resolutions, W is the most, `image_views` int64 [N] says how many each has, and the pixels after them are zeros.

`flashsloth.media.views` makes a picture's views, in bytes; here each byte becomes a number, by a table.

Legend: N pictures, W views a picture, H and X the picture's height and width.
"""

# No `from __future__ import annotations`: transformers checks options by the types that the annotations name.
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling
from transformers.processing_utils import ImagesKwargs

from flashsloth.media import open_picture
from flashsloth.media.decoders import quiet_decoders
from flashsloth.media.pixels import DEEP_GREY_MODES
from flashsloth.media.tiff import is_decoded_wrongly
from flashsloth.media.views import PAD, ViewSettings, draw_views
from flashsloth.model.configuration_flashsloth import STANDARD_GRID, views_of

ASPECTS = ("square", PAD)
MAX_CHANNEL = 255
BATCH_DIMENSIONS = 4
"""Dimensions of an array that holds several pictures of one size."""
_FIXED = {
    "do_resize": (True, "the encoder takes views of one size"),
    "do_center_crop": (False, "the whole picture is seen"),
    "do_pad": (False, "image_aspect_ratio says how a picture becomes square"),
    "data_format": ("channels_first", "the encoder takes channels first"),
}
"""Options of transformers' image processors that have one right value here, and why."""
_NORMALISATION = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""Options of which the table is made."""
_CHANNEL_AXES = {"channels_first": 0, "channels_last": 2}
_CHANNEL_COUNTS = (1, 3, 4)


class FlashSlothImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """
    image_grid (`int`, *optional*):
        1 for one view a picture, g for the whole picture and g x g tiles of it.
    image_aspect_ratio (`str`, *optional*):
        How the whole picture becomes square: "square" squashes it, "pad" lays it on a grey square.
    resolution (`str` or `list[str]`, *optional*):
        "standard" for the whole view alone, "hd" for all views; one for all pictures, or one a picture. Default: all.
    """

    image_grid: int
    image_aspect_ratio: str
    resolution: str | list[str] | None


class FlashSlothImageProcessorPil(PilBackend):
    """Makes views with Pillow; needs no torchvision.

    Args (all optional, all saved):
        size: side of a view in pixels, `{"height": s, "width": s}`.
        image_grid: see :class:`FlashSlothImageProcessorKwargs`.
        image_aspect_ratio: the same.
        image_mean, image_std: per channel, after division by 255.
    """

    valid_kwargs = FlashSlothImageProcessorKwargs
    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers reads a plain class attribute
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"height": 384, "width": 384}  # noqa: RUF012
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    rescale_factor = 1 / MAX_CHANNEL
    image_grid = STANDARD_GRID
    image_aspect_ratio = "square"
    resolution = None

    @property
    def view_settings(self) -> ViewSettings:
        """How views are made, with the processor's own settings: for who makes them elsewhere."""
        return ViewSettings(
            _square_side(self.size), self.image_grid, self.image_aspect_ratio, Image.Resampling(self.resample)
        )

    def normalised(self, views: np.ndarray) -> torch.Tensor:
        """Views that were made elsewhere, with the processor's own settings, as the encoder takes them.

        Args:
            views: uint8 [W, size, size, 3].

        Returns:
            float32 [1, W, 3, size, size]: what `pixel_values` holds of that picture, to the last bit.
        """
        settings = {name: getattr(self, name) for name in _NORMALISATION}
        table = _normalisation_table(settings, fractions=False)
        pixel_values = np.empty((1, len(views), 3, *views.shape[1:3]), np.float32)
        for view, out in zip(views, pixel_values[0], strict=True):
            _normalise(Image.fromarray(view), table, out)
        return torch.from_numpy(pixel_values)

    @property
    def num_views(self) -> int:
        """Views a picture, with the processor's own settings."""
        return 1 if self.image_grid == STANDARD_GRID else 1 + self.image_grid**2

    def view_boxes(self, size: tuple[int, int]) -> np.ndarray:
        """Which part of a picture each of its views shows, with the processor's own settings.

        Args:
            size: (width, height) of an upright picture.

        Returns:
            float64 [W, 4], left, top, right, bottom in pixels of the picture; where a view shows the grey around the
            picture as well, beyond it: less than 0, or more than its width or height.
        """
        width, height = size
        square = max(size)
        left, top = -((square - width) // 2), -((square - height) // 2)  # as `columns_on_square` centres it
        whole = (left, top, left + square, top + square) if self.image_aspect_ratio == PAD else (0, 0, width, height)
        if self.image_grid == STANDARD_GRID:
            return np.array([whole], np.float64)
        tile = square / self.image_grid
        corners = [(left + x * tile, top + y * tile) for y in range(self.image_grid) for x in range(self.image_grid)]
        return np.array([whole, *((x, y, x + tile, y + tile) for x, y in corners)], np.float64)

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """As transformers' own; an option that is None is the processor's own setting."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        try:
            return super().preprocess(images, *args, **given)
        except StrictDataclassError as error:  # of several lines, and no ValueError
            raise ValueError(" ".join(str(error).split())) from error

    def _preprocess_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Make the views of every picture; see the module's docstring."""
        flat = _flat(images)
        if not flat:
            raise ValueError("no picture was given, expected at least one")
        _check_fixed(kwargs)
        _check_channels(flat, kwargs.get("input_data_format"))
        side = _square_side(kwargs["size"])
        if kwargs["image_aspect_ratio"] not in ASPECTS:
            raise ValueError(f"image_aspect_ratio is {kwargs['image_aspect_ratio']!r}, expected one of {ASPECTS}")
        tables = [_normalisation_table(kwargs, fractions=fractions) for fractions in (False, True)]
        grid = kwargs["image_grid"]
        if grid < STANDARD_GRID:
            raise ValueError(f"image_grid is {grid}, expected at least {STANDARD_GRID}")
        counts = views_of_all(kwargs.get("resolution"), len(flat), grid)
        is_mixed = len(set(counts)) > 1
        pixel_values = (np.zeros if is_mixed else np.empty)((len(flat), max(counts), 3, side, side), np.float32)
        settings = ViewSettings(side, grid, kwargs["image_aspect_ratio"], kwargs["resample"])
        for image, views, count in zip(flat, pixel_values, counts, strict=True):
            _make_views(_rgb(image), tables[_is_fractions(image)], settings, views[:count])
        made = {"pixel_values": pixel_values, **({"image_views": np.array(counts)} if is_mixed else {})}
        return BatchFeature(made, tensor_type=kwargs.get("return_tensors"))


def views_of_all(resolution: str | Sequence[str] | None, pictures: int, grid: int) -> list[int]:
    """How many views each of so many pictures has, at one resolution or each at its own.

    Raises:
        ValueError: for a resolution that the grid does not have, or more or fewer of them than pictures.
    """
    each = [resolution] * pictures if resolution is None or isinstance(resolution, str) else list(resolution)
    if len(each) != pictures:
        raise ValueError(f"resolution names {len(each)}, expected one, or one for each of {pictures} pictures")
    return [views_of(one, grid) for one in each]


def _make_views(image: Image.Image, table: np.ndarray, settings: ViewSettings, out: np.ndarray) -> None:
    """The whole picture and, where `out` float32 [W, 3, size, size] has room for them, its tiles row by row."""
    threads = torch.get_num_threads()  # one in a data loader's worker
    draw_views(image, settings, len(out), lambda number, view: _normalise(view, table, out[number]), threads)


def _flat(images: Any) -> list[Any]:
    """Every picture of a picture, a batch of them in one array or tensor, or lists of either, in order."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == BATCH_DIMENSIONS:
        return [picture for item in images for picture in _flat(item)]
    return [images]


def _rgb(image: Any) -> Image.Image:
    """A PIL RGB picture of whatever `flashsloth.media` opens; PIL's own are converted as the published code does,
    but for those that Pillow makes white or mixes up: grey of more than 8 bits, and some TIFF."""
    if not isinstance(image, Image.Image) or image.mode in DEEP_GREY_MODES or is_decoded_wrongly(image):
        return open_picture(image)
    with quiet_decoders():  # Pillow warns of palettes with alpha
        return image if image.mode == "RGB" else image.convert("RGB")


def _check_fixed(settings: dict[str, Any]) -> None:
    """Refuse what would have no effect."""
    for name, (fixed, reason) in _FIXED.items():
        value = getattr(settings.get(name), "value", settings.get(name))
        if value not in (None, fixed):
            raise ValueError(f"{name} is {value!r}, expected {fixed!r} in FlashSloth: {reason}")


def _check_channels(flat: list[Any], layout: Any) -> None:
    """Refuse arrays and tensors that are not laid out as `input_data_format` says; others say it by their shape."""
    layout = getattr(layout, "value", layout)
    if layout is None:
        return
    if layout not in _CHANNEL_AXES:
        raise ValueError(f"input_data_format is {layout!r}, expected one of {tuple(_CHANNEL_AXES)}")
    for image in flat:
        shape = tuple(getattr(image, "shape", ()))
        if len(shape) == BATCH_DIMENSIONS - 1 and shape[_CHANNEL_AXES[layout]] not in _CHANNEL_COUNTS:
            raise ValueError(f"a picture of shape {shape} is not {layout}: leave input_data_format out, or correct it")


def _square_side(size: Any) -> int:
    height, width = size["height"], size["width"]
    if height != width or not height:
        raise ValueError(f"size is {height}x{width}, expected a square: FlashSloth's encoder takes square views")
    return int(height)


def _is_fractions(image: Any) -> bool:
    """Whether a picture is an array or a tensor of floats, which are 0 to 1."""
    kind = getattr(image, "dtype", None)
    return bool(getattr(kind, "is_floating_point", getattr(kind, "kind", "") == "f"))


def _normalisation_table(settings: dict[str, Any], *, fractions: bool) -> np.ndarray:
    """What each byte becomes in each channel: float32 [3, 256], rounded where transformers' image processors round.

    Without `do_rescale` bytes stay 0 to 255, and `fractions`, of which bytes were made for resizing, 0 to 1.
    """
    values = np.arange(MAX_CHANNEL + 1, dtype=np.float64)
    if settings["do_rescale"]:
        values = values * settings["rescale_factor"]
    elif fractions:
        values = values / MAX_CHANNEL
    values = values.astype(np.float32)
    table = np.repeat(values[None], 3, axis=0)
    if settings["do_normalize"]:
        mean, std = (_per_channel(name, settings[name]) for name in ("image_mean", "image_std"))  # [3, 1] each
        table = (table - mean) / std
    return table.astype(np.float32)


def _per_channel(name: str, value: Any) -> np.ndarray:
    """One number, or one a channel: float32 [3, 1]."""
    numbers = np.asarray(value, np.float32)
    if numbers.size not in (1, 3):
        raise ValueError(f"{name} has {numbers.size} numbers, expected one, or three: views are RGB")
    return np.broadcast_to(numbers, (3,))[:, None]


def _normalise(view: Image.Image, table: np.ndarray, out: np.ndarray) -> None:
    """Look every byte up, into `out` float32 [3, size, size]."""
    for band, values, plane in zip(view.split(), table, out, strict=True):
        np.take(values, np.asarray(band), out=plane, mode="clip")  # no byte is outside; clip needs no copy


__all__ = ["FlashSlothImageProcessorPil", "views_of_all"]
