"""Plans: limits as the cost model has them, expectations as the shares say, memory by part, mistakes in one line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from flashsloth.errors import BenchmarkError
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.planning import efficiency
from flashsloth.planning.efficiency import Efficiency, FixedCost
from flashsloth.planning.flops import Cost, Precision, Workload
from flashsloth.planning.latency import ENCODE, POOLING, PREFILL, PREPARATION, PROCESS_BYTES, Plan, plan
from flashsloth.planning.machine import Machine

STANDARD, HD = FlashSlothConfig(), FlashSlothConfig(image_grid=2)
GPU_RATES = (790e12, 4.3e12)
"""FLOP/s and bytes/s of the accelerator that the cost model's table is for; CPU_RATES the same of two Zen 5 cores."""
CPU_RATES = (990e9, 50e9)


def machine(rate: float, bandwidth: float, device: str = "cpu", **changes: Any) -> Machine:
    fields: dict[str, Any] = {
        "name": "some machine",
        "device": device,
        "cores": 2,
        "memory_bytes": 24 * 10**9,
        "read_bandwidth": bandwidth,
        "matrix_rate": {"bfloat16": rate, "float32": rate / 2},
        "torch": "2.13.0",
        "transformers": "5.23.0",
    }
    return Machine(**{**fields, **changes})


def plan_of(config: FlashSlothConfig = STANDARD, device: str = "cpu", **options: Any) -> Plan:
    options.setdefault("machine", machine(*CPU_RATES, device=device))
    options.setdefault("dtype", torch.bfloat16)
    return plan(config, **options)


@pytest.mark.parametrize(
    ("config", "rates", "first_token", "tokens_per_second"),
    [
        (STANDARD, GPU_RATES, 2.05e-3, 801),
        (HD, GPU_RATES, 7.2e-3, 786),
        (STANDARD, CPU_RATES, 1.44, 9.3),
        (HD, CPU_RATES, 5.74, 9.2),
    ],
    ids=["gpu", "gpu, HD", "cpu", "cpu, HD"],
)
def test_the_limits_of_the_published_sizes(
    config: FlashSlothConfig, rates: tuple[float, float], first_token: float, tokens_per_second: float
) -> None:
    found = plan_of(config, machine=machine(*rates))
    assert found.first_token_limit == pytest.approx(first_token, rel=0.02)
    assert found.tokens_per_second_limit == pytest.approx(tokens_per_second, rel=0.02)


def test_the_limits_of_eight_bits_and_of_another_question() -> None:
    eight = plan_of(quantize="int8", machine=machine(*GPU_RATES))
    assert eight.tokens_per_second_limit == pytest.approx(1581, rel=0.02)
    following = plan_of(machine=machine(*GPU_RATES)).next_question
    assert following is not None
    assert following.flops == pytest.approx(0.2e12, rel=0.05)
    assert following.limit_seconds == pytest.approx(1.23e-3, rel=0.02)  # the weights must be read once all the same


@pytest.mark.parametrize("batch", [1, 8])
def test_what_is_expected_is_the_limit_by_the_share_and_the_fixed_part(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    shares = Efficiency(encoder=0.5, pooling=0.25, prefill=0.8, decode=0.9, row=0.1)
    fixed = FixedCost(layer=1e-3, token=2e-3, picture=1e-3, view_pixel=1e-8)
    monkeypatch.setitem(efficiency.EFFICIENCIES, ("cpu", "bfloat16"), shares)
    monkeypatch.setitem(efficiency.FIXED_COSTS, "cpu", fixed)
    found = plan_of(batch=batch)
    prepare, look, pool, read = found.stages
    assert [stage.name for stage in found.stages] == [PREPARATION, ENCODE, POOLING, PREFILL]
    assert prepare.seconds == pytest.approx(batch * (1e-3 + 384**2 * 1e-8))
    assert look.seconds == pytest.approx(look.limit_seconds / 0.5 + 26e-3)
    assert pool.seconds == pytest.approx(pool.limit_seconds / 0.25 + 1e-3)
    assert read.seconds == pytest.approx(read.limit_seconds / 0.8 + 33e-3 + 2e-3)
    slower = 1 + 0.1 * (batch - 1)
    assert found.step.seconds == pytest.approx(found.step.limit_seconds / 0.9 * slower + 32e-3 + 2e-3)
    assert found.first_token_seconds == pytest.approx(sum(stage.seconds or 0 for stage in found.stages))
    assert found.tokens_per_second == pytest.approx(batch / found.step.seconds)
    assert found.response_seconds == pytest.approx(found.first_token_seconds + 63 * found.step.seconds)
    work = {1: "642 GFLOP", 8: "5.13 TFLOP"}[batch]
    assert look.rests_on == f"{work} at 50% of 990 GFLOP/s + 26.0 ms"
    assert prepare.rests_on == f"{batch} views of 384x384 pixels"


def test_nothing_is_expected_where_nobody_measured() -> None:
    found = plan_of(machine=machine(*GPU_RATES, device="cuda:0"))
    assert found.first_token_limit == pytest.approx(2.05e-3, rel=0.02)
    expected = (found.first_token_seconds, found.tokens_per_second, found.response_seconds)
    assert expected == (None, None, None)
    assert all(stage.seconds is None for stage in (*found.stages, found.step))
    assert found.memory.process == 0  # it is not the accelerator's


def test_no_pictures_take_no_time() -> None:
    found = plan_of(pictures=0)
    assert [stage.name for stage in found.stages] == [PREFILL]
    assert (found.visual_tokens, found.positions, found.next_question) == (0, 64 + 9, None)
    assert found.memory.pictures == 0


def test_every_share_is_a_share() -> None:
    for key, shares in efficiency.EFFICIENCIES.items():
        values = dataclasses.asdict(shares)
        row = values.pop("row")
        assert all(0 < value <= 1 for value in values.values()), key
        assert row >= 0, key
        assert key[0] in efficiency.FIXED_COSTS


def test_memory_by_part() -> None:
    cost, precision = Cost.of(STANDARD), Precision(torch.bfloat16)
    memory = plan_of(batch=2, new_tokens=100).memory
    assert memory.weights == 2 * sum(cost.parameters.values())
    assert memory.keys_and_values == 2 * 256 * 327_680  # 154 + 100 - 1 positions, in columns of the cache
    kept = (35 + cost.config.num_image_tokens) * cost.key_value_bytes(precision)
    assert memory.pictures == 2 * (cost.feature_bytes(precision, 1) + kept)
    assert memory.process == PROCESS_BYTES["cpu"]
    assert memory.total == sum(dataclasses.asdict(memory).values())
    assert plan_of(quantize="int4").memory.total < plan_of(quantize="int8").memory.total < plan_of().memory.total
    assert plan_of(dtype=torch.float32).memory.weights == 2 * memory.weights


@pytest.mark.parametrize(("memory_bytes", "fits"), [(24 * 10**9, True), (65 * 10**8, False), (0, None)])
def test_whether_it_fits(memory_bytes: int, fits: bool | None) -> None:
    assert plan_of(machine=machine(*CPU_RATES, memory_bytes=memory_bytes)).fits is fits


def test_a_plan_as_json() -> None:
    found = plan_of(HD, pictures=2, quantize="int8")
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["first_token_seconds"] == found.first_token_seconds
    assert stored["memory_bytes"]["total"] == found.memory.total
    assert (stored["pictures"], stored["visual_tokens"], stored["quantize"]) == (2, 810, "int8")
    assert [stage["name"] for stage in stored["stages"]] == [PREPARATION, ENCODE, POOLING, PREFILL]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int3"}, "quantize is 'int3'; expected one of int8, int4, or none"),
        ({"quantize": "int8", "device": "cuda"}, "quantize='int8' works on cpu so far, not on cuda"),
        ({"dtype": torch.float16}, "some machine was measured in bfloat16, float32, not in float16"),
        ({"pictures": 30}, r"the prompt has 2,503 tokens \(2,430 of them for pictures\)"),
        ({"new_tokens": 1900}, "the answer 1,900, and this model's context is 2,048"),
        ({"batch": 0}, "batch is 0; expected a whole number, at least 1"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as error:
        plan_of(**options)
    assert "\n" not in str(error.value)


def test_defaults_are_the_standard_job() -> None:
    assert plan_of().work == Workload(pictures=1, text_tokens=64, new_tokens=64, batch=1)
