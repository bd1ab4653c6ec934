"""What `load()` returns can be copied, pickled and sent to a process that was spawned: same answers, empty caches."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

import pytest
import torch
from tiny import picture
from torch import nn

import flashsloth
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.kernels.capabilities import can_pack
from flashsloth.kernels.cpu_linear import Activation, PackedLinear

QUESTION = "What is in the picture?"
OPTIONS: list[dict[str, Any]] = [{}, {"quantize": "int8"}, {"quantize": "int4"}, {"optimize": False}]
LIMIT = 1 << 20
needs_packing = pytest.mark.skipif(not can_pack(torch.float32), reason="no packed float32 products here")


def pickled(sloth: FlashSloth) -> FlashSloth:
    copied: FlashSloth = pickle.loads(pickle.dumps(sloth))
    return copied


def answers(sloth: FlashSloth) -> list[str]:
    return sloth.answer_many(picture(3), [QUESTION, "How many circles are there?"], max_new_tokens=8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("make", [copy.deepcopy, pickled])
def test_a_copy_answers_alike_with_caches_of_its_own(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], make: Callable[[FlashSloth], FlashSloth]
) -> None:
    monkeypatch.setattr(import_module("flashsloth.kernels.optimize"), "WORTH_PACKING", 1)
    sloth = flashsloth.load(picture_cache=LIMIT, **options)
    expected = answers(sloth)
    held = len(sloth.pictures)
    copied = make(sloth)
    assert len(copied.pictures) == 0
    assert copied.pictures.limit == LIMIT
    assert answers(copied) == expected
    assert len(sloth.pictures) == held > 0
    for mine, theirs in zip(copied.model.parameters(), sloth.model.parameters(), strict=True):
        assert mine.data_ptr() != theirs.data_ptr()
    hooks = [hook for layer in copied.model.modules() for hook in layer._forward_pre_hooks.values()]
    assert [hook.__self__ for hook in hooks] == [copied.model.model]  # EmbQ is the copy's own
    assert copied.name == sloth.name
    assert copied.chat().ask(QUESTION) == sloth.chat().ask(QUESTION)


@needs_packing
def test_a_packed_layer_is_packed_in_its_copy() -> None:
    plain = nn.Linear(64, 32)
    packed = PackedLinear(plain, Activation("gelu", "tanh"))
    x = torch.randn(5, 64)
    for made in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert made._weight.layout == torch._mkldnn
        assert torch.equal(made(x), packed(x))
        assert torch.equal(made.weight, plain.weight)


def answer_there(sloth: FlashSloth, results: Any) -> None:
    results.put((len(sloth.pictures), answers(sloth)))


def test_a_spawned_process_answers_alike() -> None:
    sloth = flashsloth.load()
    expected = answers(sloth)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=answer_there, args=(sloth, results))
    process.start()
    wait([results._reader, process.sentinel])  # an answer, or an end without one
    found = results.get() if results._reader.poll() else None
    process.join()
    assert process.exitcode == 0
    assert found == (0, expected)
