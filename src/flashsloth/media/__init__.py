"""The one place that opens a picture.

In: whatever a user has. Out: `PIL.Image.Image` of mode RGB, or a `PictureError`, one line that says why not.

    open_image.py   path, data URL, file object, bytes -> encoded bytes, then all below in order, limits between
    formats.py      encoded bytes -> a Pillow image of which the header alone is read
    pixels.py       decoded pixels of any mode, or an array -> upright 8-bit RGB

and views.py makes an opened picture's views for the vision encoder. Nothing here needs torch.
"""

from flashsloth.media.limits import DEFAULT_LIMITS, MediaLimits, PictureError
from flashsloth.media.open_image import ImagePolicy, PictureSource, data_url_bytes, open_picture, open_pictures

__all__ = [
    "DEFAULT_LIMITS",
    "ImagePolicy",
    "MediaLimits",
    "PictureError",
    "PictureSource",
    "data_url_bytes",
    "open_picture",
    "open_pictures",
]
