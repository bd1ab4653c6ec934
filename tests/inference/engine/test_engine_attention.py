"""A request that asks where the model looked gets it from every runner, beside others that do not ask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_engines import CLOSE, LoadCalm, graph_engine, plain_engine
from test_engine_steps import finish, tokens
from test_graph_runner import ROWS, requests, warm

from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import pad_right
from flashsloth.inference.request import Request
from flashsloth.inference.vision import picture_inputs
from flashsloth.model.attention_maps import AttentionWeights, recording_attention


@torch.no_grad()
def looked(sloth: FlashSloth, asked: Request) -> AttentionWeights | None:
    """Where the model looks in a pass over the whole prompt alone."""
    device = sloth.model.device
    assert asked.pictures is not None
    with recording_attention(sloth.model) as maps:
        sloth.model.model(
            **pad_right([asked.prompt], 0, device), **picture_inputs([asked.pictures.features], device), use_cache=False
        )
    return maps.of()


@pytest.mark.parametrize("name", ["phi", "hd"])
@pytest.mark.parametrize("replayed", [False, True], ids=["plain", "replayed"])
def test_beside_others(name: str, replayed: bool, load_calm: LoadCalm) -> None:
    sloth = load_calm(name)
    engine = plain_engine(sloth, max_rows=ROWS)
    expected = [engine.add_request(one) for one in requests(sloth)]
    plain = finish(engine)
    if replayed:
        engine, runner = graph_engine(sloth, max_rows=ROWS)
        engine._image_encoder.encode = runner.encode
        warm(sloth, runner)
    asked = [replace(one, attention=number % 3 > 0) for number, one in enumerate(requests(sloth))]
    ids = [engine.add_request(one) for one in asked]
    found = finish(engine)
    for number, one, before in zip(ids, asked, expected, strict=True):
        assert tokens(found[number]) == tokens(plain[before])
        attention = found[number][-1].attention
        if not one.attention or one.pictures is None:
            assert attention is None
            continue
        again = looked(sloth, one)
        assert attention is not None
        assert again is not None
        np.testing.assert_allclose(attention.queries, again.queries, atol=CLOSE)
        np.testing.assert_allclose(attention.sap, again.sap, atol=CLOSE)
