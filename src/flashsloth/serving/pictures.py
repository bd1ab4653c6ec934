"""Pictures of requests: from what a client sent to what the engine encodes.

In: data URLs and addresses. Out: :class:`PreparedPictures`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.vision import PreparedPictures
from flashsloth.media import data_url_bytes
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.metrics import Metrics


class Pictures:
    """Prepares pictures beside the event loop.

    Args:
        sloth: the model that they are for.
        config: limits.
        metrics: count them.
    """

    def __init__(self, sloth: FlashSloth, config: ServeConfig, metrics: Metrics) -> None:
        self._sloth, self._config, self._metrics = sloth, config, metrics

    async def start(self) -> None:
        """Start the workers."""

    async def close(self) -> None:
        """End them."""

    async def prepare(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        """Pictures, in their order.

        Raises:
            PictureError: for one that cannot be used.
        """
        return await asyncio.to_thread(self._prepare, sources, resolution)

    def _prepare(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        encoder = self._sloth.image_encoder
        prepared = encoder.prepare(encoder.open([data_url_bytes(one) for one in sources], "careful"), resolution)
        self._metrics.note_pictures(len(prepared), len(prepared) - prepared.unencoded)
        return prepared
