"""Pictures of requests: from what a client sent to what the engine encodes.

In: data URLs and addresses. Out: :class:`PreparedPictures`. The media workers open them (`media_workers.py`), unless
the very same text was opened before and the features of that picture are still kept.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence

from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.vision import PreparedPictures, join_prepared
from flashsloth.media import PictureError
from flashsloth.model.configuration_flashsloth import views_of
from flashsloth.serving.api_error import unavailable
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.media_process import MediaUnavailable
from flashsloth.serving.media_workers import MediaWorkers
from flashsloth.serving.metrics import Metrics

RETRY_SECONDS = 1
VIEW_BYTES = 512 << 20
"""For views of all requests that the encoder has not run on: further requests' pictures are opened later."""
LOOK_SECONDS = 0.01
"""Between two looks at whether there is room again."""
FLOAT_BYTES = 4


class Pictures:
    """Prepares pictures beside the event loop.

    Args:
        sloth: the model that they are for.
        config: limits.
        metrics: count them.
    """

    def __init__(self, sloth: FlashSloth, config: ServeConfig, metrics: Metrics) -> None:
        self._encoder, self._metrics = sloth.image_encoder, metrics
        self._settings = sloth.processor.image_processor.view_settings
        self._workers = MediaWorkers(config, self._settings)
        self._most_bytes = VIEW_BYTES
        self._door = asyncio.Lock()
        self._reserved = 0
        self._held: list[weakref.ref[PreparedPictures]] = []

    async def start(self) -> None:
        """Start the workers.

        Raises:
            MediaUnavailable: if one does not start.
        """
        await self._workers.start()

    async def close(self) -> None:
        """End them."""
        await self._workers.close()

    async def prepare(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        """Pictures, in their order.

        Raises:
            PictureError: for one that cannot be used.
            ApiError: 503, if no worker can be had.
        """
        if not sources:
            return PreparedPictures()
        wanted = len(sources) * views_of(resolution, self._settings.grid) * 3 * self._settings.side**2 * FLOAT_BYTES
        async with self._door:  # first come, first served; all pictures of a request at once, or each would wait
            while (held := self._bytes_held()) and held + wanted > self._most_bytes:
                await asyncio.sleep(LOOK_SECONDS)
            self._reserved += wanted
        try:
            prepared = await self._prepare_all(sources, resolution)
        finally:
            self._reserved -= wanted
        self._held.append(weakref.ref(prepared))
        return prepared

    def _bytes_held(self) -> int:
        """Of views that are made, or being made, and that the encoder has not run on."""
        self._held = [one for one in self._held if (held := one()) is not None and held.unencoded]
        return self._reserved + sum(held.view_bytes for one in self._held if (held := one()) is not None)

    async def _prepare_all(self, sources: Sequence[str], resolution: str | None) -> PreparedPictures:
        asked = (self._prepare(source, resolution) for source in sources)
        results = await asyncio.gather(*asked, return_exceptions=True)
        parts: list[PreparedPictures] = []
        made: PreparedPictures | BaseException | None = None
        try:
            for number, made in enumerate(results, start=1):
                if isinstance(made, MediaUnavailable):
                    raise unavailable(str(made), RETRY_SECONDS) from made
                if isinstance(made, PictureError) and len(sources) > 1:
                    raise PictureError(f"picture {number} of {len(sources)}: {made}") from made
                if isinstance(made, BaseException):
                    raise made
                parts.append(made)
        finally:  # an error holds this frame, which must not hold it: the pictures' bytes would stay with both
            made = None
            results.clear()
        prepared = join_prepared(parts)
        self._metrics.note_pictures(len(prepared), len(prepared) - prepared.unencoded)
        return prepared

    async def _prepare(self, source: str, resolution: str | None) -> PreparedPictures:
        if known := self._workers.known(source):
            prepared = self._encoder.prepare_known(known.digest, known.size, resolution)
            if prepared is not None:
                return prepared
        views = await self._workers.prepare(source, resolution)
        return await asyncio.to_thread(self._encoder.prepare_views, views, resolution)
