"""What a processor can do is tried, and the environment can lower it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from flashsloth.kernels import SpeedError, capabilities
from flashsloth.kernels.capabilities import (
    ONEDNN_CEILING,
    WITHOUT,
    Capability,
    can_multiply,
    can_pack,
    multiplies_bfloat16,
)

DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def _as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (WITHOUT, ONEDNN_CEILING):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("ability", list(Capability))
def test_each_can_be_taken_away(ability: Capability, monkeypatch: pytest.MonkeyPatch) -> None:
    before = capabilities.missing()
    monkeypatch.setenv(WITHOUT, f" {ability.upper()},")
    assert set(capabilities.missing()) == {*before, ability}


def test_names_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "int8,avx9")
    with pytest.raises(
        SpeedError, match=r"FLASHSLOTH_WITHOUT names 'avx9'; expected some of packed-float32, .*, bfloat16"
    ):
        can_pack(torch.float32)


def test_what_is_taken_away_in_one_precision_stays_in_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    other = can_pack(torch.float32)
    monkeypatch.setenv(WITHOUT, "packed-bfloat16")
    assert not can_pack(torch.bfloat16)
    assert can_pack(torch.float32) == other


@pytest.mark.parametrize("failing", ["missing", "wrong"])
def test_an_operator_that_is_missing_or_wrong_is_not_used(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(x: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.zeros(len(x), len(weight))

    def missing(*_: object) -> torch.Tensor:
        raise NotImplementedError

    replaced = {"missing": missing, "wrong": wrong}[failing]
    monkeypatch.setattr(torch.ops.aten, "_weight_int8pack_mm", replaced)
    monkeypatch.setattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu", replaced)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", replaced)
    capabilities._is_right.cache_clear()
    capabilities._packs.cache_clear()
    try:
        assert not any(can_multiply(quantize, dtype) for quantize in ("int8", "int4") for dtype in DTYPES)
        assert not any(can_pack(dtype) for dtype in DTYPES)
    finally:
        capabilities._is_right.cache_clear()
        capabilities._packs.cache_clear()


@pytest.mark.parametrize(
    ("capability", "ceiling", "expected"),
    [
        ("avx512_bf16", None, True),
        ("avx512_bf16", "default", True),
        ("amx_bf16", "AVX512_CORE_AMX", True),
        ("avx512_bf16", "AVX512_CORE_VNNI", False),
        ("avx512_bf16", "AVX2", False),
        ("avx2", None, False),
    ],
)
def test_bfloat16_is_multiplied_where_the_processor_can_and_is_let(
    capability: str, ceiling: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    if ceiling is not None:
        monkeypatch.setenv(ONEDNN_CEILING, ceiling)
    assert multiplies_bfloat16() is expected


def test_a_lowered_processor_is_asked_as_lowered() -> None:
    """Ceilings are read once a process, so they are tried in one of its own."""
    code = "from flashsloth.kernels.capabilities import missing; print(*missing())"
    lowered = {**os.environ, ONEDNN_CEILING: "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=lowered, capture_output=True, text=True, check=True)
    assert {"bfloat16", *capabilities.missing()} <= set(done.stdout.split())
