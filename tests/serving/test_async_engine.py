"""An event loop's way to the engine: who is let in, what comes back, and who stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Any

import pytest

from flashsloth.errors import EngineError
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.serving.api_error import ApiError
from flashsloth.serving.async_engine import AsyncEngine

PATIENCE = 60


@pytest.fixture
def sloth(tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor) -> FlashSloth:
    return FlashSloth(tiny_model, tiny_processor)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), PATIENCE))


def request(sloth: FlashSloth, tokens: int, **options: Any) -> Request:
    return sloth.request(None, "What is this?", max_tokens=tokens, **options)


def test_all_answers_come_back_each_to_its_reply(sloth: FlashSloth) -> None:
    async def work() -> None:
        engine = AsyncEngine(sloth.engine_thread, 4, 4)

        async def read(tokens: int, n: int) -> list[RequestOutput]:
            reply = engine.submit(request(sloth, tokens, n=n, temperature=1.0, seed=tokens))
            return [output async for outputs in reply for output in outputs]

        found = await asyncio.gather(*(read(tokens, n) for tokens in (1, 5, 9) for n in (1, 3)))
        for outputs, (tokens, n) in zip(found, [(t, n) for t in (1, 5, 9) for n in (1, 3)], strict=True):
            ends = {one.index: one for one in outputs if one.finish_reason is not None}
            assert sorted(ends) == list(range(n))
            assert len({one.request_id for one in outputs}) == 1
            for index in range(n):
                assert sum(len(one.tokens) for one in outputs if one.index == index) <= tokens

    run(work)


def test_who_stops_reading_aborts(sloth: FlashSloth) -> None:
    async def work() -> None:
        engine = AsyncEngine(sloth.engine_thread, 4, 4)
        endless = request(sloth, 400, logit_bias=dict.fromkeys(sloth.engine.end_ids, -100))
        streamed = replace(endless, streams=True)
        async with aclosing(aiter(engine.submit(streamed))) as outputs:
            async for _ in outputs:
                break
        while sloth.engine.has_work:
            await asyncio.sleep(0.01)
        [last] = [one async for some in engine.submit(request(sloth, 1)) for one in some if one.finish_reason]
        assert last.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)

    run(work)


def test_an_engine_that_has_failed_is_told_to_all(sloth: FlashSloth, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Engine) -> None:
        raise RuntimeError("the device is gone")

    async def work() -> None:
        engine = AsyncEngine(sloth.engine_thread, 4, 4)
        monkeypatch.setattr(Engine, "step", fail)
        with pytest.raises(EngineError, match="the device is gone"):
            async for _ in engine.submit(request(sloth, 5)):
                pass
        with pytest.raises(EngineError):
            engine.submit(request(sloth, 5))

    run(work)


def test_more_than_may_wait_are_refused_with_a_time(sloth: FlashSloth) -> None:
    async def work() -> None:
        engine = AsyncEngine(sloth.engine_thread, 2, 3)
        with ExitStack() as stack:
            for answers in (1, 3, 1):
                stack.enter_context(engine.admit(answers))
            assert engine.accepted == 5
            with pytest.raises(ApiError) as refused, engine.admit(1):
                pass
            assert refused.value.status == 429
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
            assert engine.accepted == 5
        assert engine.accepted == 0
        with pytest.raises(ApiError) as refused, engine.admit(6):
            pass
        assert refused.value.status == 400
        assert refused.value.param == "n"

    run(work)
