"""A Pillow image whose header Pillow did not read and whose pixels another library decodes.

In: a subclass that knows the library. Out: an image that is lazy as Pillow's own are: its size and mode are known when
it is made, its pixels when it is loaded.
"""

from abc import abstractmethod
from typing import Any

from PIL import Image, ImageFile


class DecodedElsewhere(ImageFile.ImageFile):
    """Subclasses set `_size`, `_mode` and `info` in `_open`, and give the pixels in `_decode`."""

    @abstractmethod
    def _decode(self) -> Image.Image:
        """The pixels, as an image of any mode and size: what a header says may differ."""

    def load(self) -> Any:
        if self._im is None:
            decoded = self._decode()
            decoded.load()
            self._mode, self._size, self.im = decoded.mode, decoded.size, decoded.im
            self.tile = []
        return super().load()
