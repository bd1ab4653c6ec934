"""A request's pictures: in order, as the command line makes them, and not opened again where they are known."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch
from picture_urls import png_url
from tiny import picture

import flashsloth
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.media import PictureError
from flashsloth.serving.api_error import ApiError
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.metrics import Metrics
from flashsloth.serving.pictures import Pictures

PATIENCE = 60.0


@pytest.fixture(scope="module")
def sloth() -> FlashSloth:
    return flashsloth.load()


@pytest.fixture(autouse=True)
def forgets(sloth: FlashSloth) -> None:
    """Each test begins with a model that knows no picture."""
    sloth.pictures.clear()


def run(sloth: FlashSloth, test: Callable[[Pictures, Metrics], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        metrics = Metrics()
        pictures = Pictures(sloth, ServeConfig(media_seconds=20.0), metrics)
        await pictures.start()
        try:
            async with asyncio.timeout(PATIENCE):
                await test(pictures, metrics)
        finally:
            await pictures.close()

    asyncio.run(whole())


def opened(pictures: Pictures) -> int:
    """How many pictures the workers were asked for."""
    return sum(process.pictures for process in pictures._workers._processes)


def test_they_are_those_of_the_command_line_in_order(sloth: FlashSloth) -> None:
    shown = [picture(seed, 30 + 50 * seed, 200) for seed in range(5)]

    async def test(pictures: Pictures, _: Metrics) -> None:
        prepared = await pictures.prepare([png_url(one) for one in shown], None)
        expected = sloth.image_encoder.prepare(shown)
        assert (prepared.keys, prepared.sizes, prepared.views) == (expected.keys, expected.sizes, expected.views)
        for ours, theirs in zip(prepared.made, expected.made, strict=True):
            assert torch.equal(ours, theirs)
        assert len(await pictures.prepare([], None)) == 0

    run(sloth, test)


def test_what_is_known_needs_no_worker_until_it_is_dropped(sloth: FlashSloth) -> None:
    one, other = png_url(picture(1)), png_url(picture(2))

    async def test(pictures: Pictures, metrics: Metrics) -> None:
        first = await pictures.prepare([one], None)
        assert (first.unencoded, opened(pictures)) == (1, 1)
        [features] = sloth.image_encoder.encode_prepared([first])
        again = await pictures.prepare([one, other, one], None)
        assert [isinstance(made, torch.Tensor) for made in again.made] == [False, True, False]
        assert opened(pictures) == 2
        sloth.pictures.clear()  # the source is remembered, its features are not
        dropped = await pictures.prepare([one], None)
        assert (dropped.unencoded, opened(pictures), dropped.keys) == (1, 3, list(features.identity))
        text = metrics.text().decode()
        for name, count in (("queries", 5), ("hits", 2)):
            assert f"mm_cache_{name}_total {count}.0\n" in text

    run(sloth, test)


def test_the_error_says_which_picture(sloth: FlashSloth) -> None:
    good, bad = png_url(picture(1)), "data:image/png;base64,AAAA"

    async def test(pictures: Pictures, _: Metrics) -> None:
        with pytest.raises(PictureError, match=r"^picture 2 of 3: an unknown kind of file"):
            await pictures.prepare([good, bad, "file:///etc/passwd"], None)
        with pytest.raises(PictureError, match=r"^an unknown kind of file"):
            await pictures.prepare([bad], None)
        assert (await pictures.prepare([good], None)).sizes == [picture(1).size]

    run(sloth, test)


def test_a_picture_is_refused_and_then_sent_whole(sloth: FlashSloth) -> None:
    """P2: what was refused leaves nothing behind."""
    good = png_url(picture(3))

    async def test(pictures: Pictures, _: Metrics) -> None:
        for cut in (-400, -100):
            with pytest.raises(PictureError):
                await pictures.prepare([good[:cut]], None)
        [made] = (await pictures.prepare([good], None)).made
        assert torch.equal(made, sloth.image_encoder.prepare([picture(3)]).made[0])

    run(sloth, test)


def test_without_workers_it_is_503(sloth: FlashSloth) -> None:
    async def test(pictures: Pictures, _: Metrics) -> None:
        await pictures.close()
        with pytest.raises(ApiError) as refusal:
            await pictures.prepare([png_url(picture(1))], None)
        assert refusal.value.status == 503
        assert refusal.value.headers["Retry-After"].isdigit()

    run(sloth, test)


def test_a_worker_that_is_killed_costs_one_picture_at_most(sloth: FlashSloth) -> None:
    async def test(pictures: Pictures, _: Metrics) -> None:
        urls = [png_url(picture(seed)) for seed in range(40)]
        asked = [asyncio.create_task(pictures.prepare([url], None)) for url in urls]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        os.kill(pictures._workers.pids[0], signal.SIGKILL)
        done = await asyncio.gather(*asked, return_exceptions=True)
        failed = [one for one in done if isinstance(one, Exception)]
        assert len(failed) <= 1
        assert all("was killed" in str(one) for one in failed)

    run(sloth, test)


def test_views_that_wait_for_the_encoder_take_so_much_memory_and_no_more(sloth: FlashSloth) -> None:
    async def test(pictures: Pictures, _: Metrics) -> None:
        first = await pictures.prepare([png_url(picture(0))], None)
        pictures._most_bytes = 3 * first.view_bytes
        held = [first, await pictures.prepare([png_url(picture(1)), png_url(picture(2))], None)]
        waiting = [asyncio.create_task(pictures.prepare([png_url(picture(seed))], None)) for seed in (3, 4)]
        known = png_url(picture(0))
        assert not (await asyncio.wait(waiting, timeout=0.2))[0]
        assert pictures._bytes_held() == 3 * first.view_bytes
        sloth.image_encoder.encode_prepared([held[0]])  # the encoder has run
        assert len(await waiting[0]) == 1
        assert not waiting[1].done()
        held.clear()  # the request has ended
        del first
        assert len(await waiting[1]) == 1
        waiting.clear()
        await pictures.prepare([known, *(png_url(picture(seed)) for seed in (5, 6, 7))], None)  # more than all: alone
        assert pictures._reserved == 0

    run(sloth, test)
