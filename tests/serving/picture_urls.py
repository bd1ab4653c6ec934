"""Pictures as clients send them."""

from __future__ import annotations

import base64
import io

from PIL import Image


def data_url(data: bytes, kind: str = "png") -> str:
    """Bytes as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def png_url(picture: Image.Image) -> str:
    """A picture as a data URL of a PNG."""
    return data_url(png_bytes(picture))
