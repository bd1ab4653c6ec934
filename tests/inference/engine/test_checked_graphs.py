"""The stand-in for CUDA graphs fails where a graph would be wrong."""

from __future__ import annotations

import pytest
import torch
from checked_graphs import CheckedGraphs, GraphMismatchError
from torch import nn


def test_a_replay_works_on_what_static_tensors_hold_now_and_hands_out_the_same_memory() -> None:
    layer, static = nn.Linear(3, 2), torch.ones(4, 3)
    replay = CheckedGraphs(layer).capture(lambda: (layer(static[:2]),), [static])
    [first] = replay()
    static.zero_()
    [second] = replay()
    assert second is first
    torch.testing.assert_close(second, layer.bias.expand(2, 2))


def test_an_input_that_is_not_static_cannot_be_recorded() -> None:
    static, other = torch.ones(3), torch.ones(3)
    with pytest.raises(GraphMismatchError, match="neither static"):
        CheckedGraphs(nn.Identity()).capture(lambda: (static + other,), [static])


def test_what_asks_the_device_cannot_be_recorded() -> None:
    static = torch.ones(3)
    graphs = CheckedGraphs(nn.Identity())
    for run in (lambda: (static[static > 0],), lambda: (static * int(static.sum()),), lambda: (static.nonzero(),)):
        with pytest.raises(GraphMismatchError):
            graphs.capture(run, [static])


def test_what_is_made_nowhere_in_particular_cannot_be_recorded() -> None:
    static = torch.ones(3)
    with pytest.raises(GraphMismatchError, match="does not say where"):
        CheckedGraphs(nn.Identity()).capture(lambda: (static + torch.arange(3),), [static])
    CheckedGraphs(nn.Identity()).capture(lambda: (static + torch.arange(3, device=static.device),), [static])


@pytest.mark.parametrize("change", ["shape", "number", "place"])
def test_a_replay_that_would_do_something_else_fails(change: str) -> None:
    static = torch.ones(4)
    now = {"shape": slice(0, 2), "number": 1.0, "input": static}
    replay = CheckedGraphs(nn.Identity()).capture(lambda: (now["input"][now["shape"]] * now["number"],), [static])
    replay()
    now |= {"shape": {"shape": slice(0, 3)}, "number": {"number": 2.0}, "place": {"input": torch.ones(4)}}[change]
    with pytest.raises(GraphMismatchError):
        replay()
