"""Where the model looked and at which resolution, over HTTP: the same as in process."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import tiny
from running import running
from served import MODEL, PATIENCE, events_of, nano, post
from served import serving as serving_nano

from flashsloth.inference.answer import Answer
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.service import Service

QUESTION = "What is this?"
PICTURES = [tiny.picture(1, 40, 30), tiny.picture(2, 20, 50)]


def body(resolution: str | None, **own: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": QUESTION}]
    for picture in PICTURES:
        file = io.BytesIO()
        picture.save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    asked = {"resolution": resolution, **own}
    return {"model": MODEL, "max_tokens": 6, "messages": [{"role": "user", "content": parts}], "flashsloth": asked}


@pytest.fixture(scope="module")
def hd(tiny_tokenizer: Any) -> FlashSloth:
    config = tiny.make_config(tiny_tokenizer, image_grid=2)
    return FlashSloth(tiny.make_model(config), tiny.make_processor(tiny_tokenizer, config))


@pytest.fixture(scope="module")
def url(hd: FlashSloth) -> Iterator[str]:
    with running(create_app(Service(hd, ServeConfig(port=0)))) as server:
        yield f"http://127.0.0.1:{server.port}/v1/chat/completions"


def maps(text: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(shape)


@pytest.mark.parametrize(
    ("resolution", "threshold"), [(None, None), ("hd", None), ("standard", None), ("auto", 0), ("auto", 1)]
)
@pytest.mark.parametrize("streams", [False, True])
def test_each_resolution_as_in_process(
    hd: FlashSloth, url: str, resolution: str | None, threshold: float | None, streams: bool
) -> None:
    options: dict[str, Any] = {"resolution": resolution}
    if threshold is not None:
        options["resolution_threshold"] = threshold
    alone: Answer = hd.answer(PICTURES, QUESTION, max_tokens=6, attention=True, **options)
    asked = {**body(attention=True, tiles=True, **options), "stream": streams}
    reply = post(url, asked)
    assert reply.status_code == 200, reply.text
    if streams:
        events = events_of(reply.text)
        text = "".join(one["choices"][0]["delta"].get("content", "") for one in events)
        own = events[-1]["choices"][0]["flashsloth"]
    else:
        [choice] = reply.json()["choices"]
        text, own = choice["message"]["content"], choice["flashsloth"]
    assert (text, own["resolution"]) == (alone.text, alone.resolution)
    assert 0 < own["times"]["pictures"] <= own["times"]["first_token"] <= own["times"]["total"]
    assert len(own["attention"]["pictures"]) == len(alone.attention) == len(PICTURES)
    for found, expected in zip(own["attention"]["pictures"], alone.attention, strict=True):
        queries, views, *grid = expected.queries.shape
        assert found["grid"] == grid
        assert found["box"] == list(expected.box)
        assert len(found["tiles"]) == views - 1
        for view, described in enumerate([found, *found["tiles"]]):
            np.testing.assert_allclose(maps(described["sap"], *grid), expected.saliency[view], atol=1e-3)
            np.testing.assert_allclose(maps(described["embq"], queries, *grid), expected.queries[:, view], atol=1e-3)


@pytest.mark.parametrize(("attention", "given", "missing"), [("sap", "sap", "embq"), ("embq", "embq", "sap")])
def test_one_kind_of_map(url: str, attention: str, given: str, missing: str) -> None:
    [choice] = post(url, body("standard", attention=attention)).json()["choices"]
    for found in choice["flashsloth"]["attention"]["pictures"]:
        assert given in found
        assert missing not in found
        assert "tiles" not in found


def test_a_model_of_one_view_has_no_hd() -> None:
    with serving_nano() as url:
        for resolution in ("hd", "auto"):
            reply = post(f"{url}/v1/chat/completions", body(resolution))
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == "resolution"
        facts = httpx2.get(f"{url}/v1/models/{MODEL}", timeout=PATIENCE).json()
        assert facts["flashsloth"]["hd"] is False
    assert nano().model.config.num_views == 1
