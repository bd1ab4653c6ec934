"""Shares fitted to results make plans that say what was measured."""

from __future__ import annotations

import pytest
from some_results import make_model_result, make_results, make_run

from flashsloth.benchmark.calibrate import compare, fit_efficiencies, fit_fixed_cost, plan_of
from flashsloth.benchmark.results import Results, Run
from flashsloth.errors import BenchmarkError
from flashsloth.planning import efficiency
from flashsloth.planning.efficiency import Efficiency, FixedCost
from flashsloth.planning.latency import ENCODE, PREPARATION

WAS = FixedCost(layer=1e-4, token=5e-4, picture=1e-3, view_pixel=1e-8)


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(efficiency.FIXED_COSTS, "cpu", WAS)


def test_fitted_shares_say_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    results = make_results()
    fitted = fit_efficiencies(results)
    assert set(fitted) == {("cpu", "bfloat16"), ("cpu", "int8")}
    assert fitted["cpu", "int8"].row == efficiency.EFFICIENCIES["cpu", "int8"].row  # no batch was measured
    for key, shares in fitted.items():
        monkeypatch.setitem(efficiency.EFFICIENCIES, key, shares)
    first = results.model("flashsloth")
    planned = plan_of(first, results)
    stages = {stage.name: stage.seconds for stage in planned.stages}
    assert stages[ENCODE] == pytest.approx(2.0 * 0.6)  # the median run's encoder
    found = compare(results)
    assert set(found) == {"flashsloth", "flashsloth-int8"}
    assert found["flashsloth"]["tokens a second"] == pytest.approx(1)
    assert found["flashsloth"]["tokens a second, batch"] == pytest.approx(1)
    measured = sum(2.0 * part for part in (0.6, 0.05, 0.02, 0.29, 0.02))
    assert found["flashsloth"]["first token"] == pytest.approx((measured + stages[PREPARATION]) / 2.0)
    assert found["flashsloth"]["memory"] == pytest.approx(planned.memory.total / 7.5e9)


def test_the_standard_and_the_hd_model_share_a_row() -> None:
    results = make_results()
    alone = fit_efficiencies(results)["cpu", "bfloat16"]
    hd = make_model_result("flashsloth-hd", "FlashSloth-HD", "flashsloth", visual=405, firsts=[8.0], token=0.24)
    results.subjects.append(hd)
    both = fit_efficiencies(results)["cpu", "bfloat16"]
    results.subjects.remove(results.model("flashsloth"))
    other = fit_efficiencies(results)["cpu", "bfloat16"]
    assert both.decode == pytest.approx((alone.decode + other.decode) / 2)
    assert alone.decode != pytest.approx(other.decode)


def test_the_small_model_tells_what_is_fixed() -> None:
    results = make_results()
    nano = make_model_result("nano", "Nano", "shipped", visual=16, firsts=[1.0], token=1.0, precision="float32")
    results.subjects = [nano]
    planned = plan_of(nano, results)
    shares = efficiency.EFFICIENCIES["cpu", "float32"]
    look, step = next(stage for stage in planned.stages if stage.name == ENCODE), planned.step
    took = look.limit_seconds / shares.encoder + look.layers * 3e-4
    gap = step.limit_seconds / shares.decode + step.layers * 3e-4 + 2e-3
    nano.runs = [Run({**make_run(1.0, 1.0).stages, "encoder": took}, [1.0, 1.0 + gap, 1.0 + 2 * gap], 0.0, 50e9)]
    fitted = fit_fixed_cost(results)
    assert (fitted.layer, fitted.token) == pytest.approx((3e-4, 2e-3))
    assert (fitted.picture, fitted.view_pixel) == (WAS.picture, WAS.view_pixel)


def without(results: Results, *names: str) -> Results:
    results.subjects = [model for model in results.subjects if model.name not in names]
    return results


def test_results_that_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    baselines = without(make_results(), "flashsloth", "flashsloth-int8")
    assert compare(baselines) == {}
    with pytest.raises(BenchmarkError, match="no FlashSloth of the published size was measured"):
        fit_efficiencies(baselines)
    with pytest.raises(BenchmarkError, match="the small model was not measured"):
        fit_fixed_cost(baselines)
    monkeypatch.setitem(efficiency.FIXED_COSTS, "cpu", FixedCost(layer=1.0, token=0.0, picture=0.0, view_pixel=0.0))
    with pytest.raises(BenchmarkError, match=r"encoder took 1\.2 s, no longer than its fixed part, 26\.0 s"):
        fit_efficiencies(make_results())


def test_an_accelerator_nobody_fitted_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    results = without(make_results(), "flashsloth-int8")
    results.machine["device"] = "cuda:0"
    fitted = fit_efficiencies(results)
    assert list(fitted) == [("cuda", "bfloat16")]
    assert isinstance(fitted["cuda", "bfloat16"], Efficiency)
