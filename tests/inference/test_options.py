"""Options as callers have them: Python's numbers, numpy's, and tensors of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flashsloth.errors import PromptError
from flashsloth.inference.options import Options


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), np.array(7), torch.tensor(7)])
def test_whole_numbers(value: Any) -> None:
    found = Options.of({"max_new_tokens": value}).params.max_tokens
    assert (found, type(found)) == (7, int)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5)])
@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_real_numbers(name: Any, value: Any) -> None:
    found = getattr(Options.of({name: value}).params, name)
    assert (found, type(found)) == (0.5, float)


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), "7", None, 7.0, [7], np.array([7, 8]), 7j])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(PromptError, match=r"max_tokens is .*; expected a whole number"):
        Options.of({"max_new_tokens": value})


@pytest.mark.parametrize("value", [True, np.True_, "1", None, [1.0], float("nan"), np.float32("inf"), 10**400, 1j])
def test_what_is_no_real_number(value: Any) -> None:
    with pytest.raises(PromptError, match=r"temperature is .*; expected a number"):
        Options.of({"temperature": value})


def test_half_a_character_is_no_system_text() -> None:
    with pytest.raises(PromptError, match="the system text holds half a character"):
        Options.of({"system": "a\ud800"})
