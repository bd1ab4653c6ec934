"""Batches come out of a socket as they went in, and a closed one says so."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
import torch

from flashsloth.training.data.worker_process import receive, send
from flashsloth.training.metrics import BatchFacts


def sent(value: object) -> object:
    """Through a socket, which holds less than a large batch."""
    one, other = socket.socketpair()
    with one, other:
        writer = threading.Thread(target=send, args=(one.makefile("rwb"), value))
        writer.start()
        found = receive(other.makefile("rwb"))
        writer.join()
    return found


def test_every_kind_of_tensor_comes_out_as_it_went_in() -> None:
    torch.manual_seed(0)
    tensors = {
        "large": torch.randn(4, 1, 3, 384, 384),
        "half": torch.randn(3, 5).bfloat16(),
        "ids": torch.arange(12).view(3, 4).T,  # not contiguous
        "mask": torch.tensor([[True, False]]),
        "empty": torch.zeros(0, 7),
        "number": torch.tensor(3.5),
    }
    facts = BatchFacts(("a",), 1, (3,), None, 0)
    found = sent({**tensors, "facts": facts, "array": np.arange(3), "deep": [{"x": torch.ones(2)}]})
    assert isinstance(found, dict)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].equal(tensor)
    assert found["facts"] == facts
    assert found["array"].tolist() == [0, 1, 2]
    assert found["deep"][0]["x"].tolist() == [1.0, 1.0]


def test_tensors_are_their_own() -> None:
    found = sent([torch.zeros(3), torch.zeros(3)])
    assert isinstance(found, list)
    found[0] += 1
    assert found[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("written", [0, 3, 30, -30, -1])
def test_an_end_in_the_midst_of_a_batch_is_told(written: int) -> None:
    one, other = socket.socketpair()
    with one, other:
        send(one.makefile("rwb"), {"ids": torch.arange(12), "name": "a"})
        whole = other.recv(1 << 16)
    one, other = socket.socketpair()
    with other:
        with one:
            one.sendall(whole[:written])
        with pytest.raises(EOFError):
            receive(other.makefile("rwb"))
