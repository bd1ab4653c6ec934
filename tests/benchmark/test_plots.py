"""Plots show every model, and no label covers another."""

from __future__ import annotations

from itertools import combinations

import pytest
from some_results import make_model_result, make_results

from flashsloth.benchmark.plots import _response_time, _where_time_goes
from flashsloth.benchmark.results import Results, all_figures


def crowded() -> Results:
    """Models that stand close together."""
    results = make_results()
    results.subjects = [
        make_model_result("flashsloth", "FlashSloth", "flashsloth", visual=81, firsts=[2.0], token=0.12),
        make_model_result("a", "A model with a long name", "peer", visual=391, firsts=[8.0], token=0.1),
        make_model_result("b", "Another with a long name", "peer", visual=405, firsts=[8.1], token=0.1),
        make_model_result("c", "A third with a long name", "peer", visual=430, firsts=[7.7], token=0.2),
        make_model_result("d", "A fourth", "peer", visual=1792, firsts=[20.0], token=0.13),
    ]
    results.sittings = []
    return results


def test_labels_do_not_cover_each_other() -> None:
    results = crowded()
    figure = _response_time(all_figures(results), results)
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(texts) == len(results.subjects)
    boxes = [text.get_window_extent() for text in texts]
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_other_forms_of_a_model_are_left_out_of_the_first_plot_only() -> None:
    results = make_results()
    measured = [one for one in all_figures(results) if one.response is not None]
    texts = [text.get_text() for text in _response_time(measured, results).axes[0].texts]
    assert [text.splitlines()[0] for text in texts] == ["FlashSloth", "Qwen2-VL-2B"]
    bars = [label.get_text() for label in _where_time_goes(measured, results).axes[0].get_yticklabels()]
    assert bars == ["FlashSloth", "FlashSloth int8", "Qwen2-VL-2B"]


def test_bars_add_up_to_the_response() -> None:
    results = make_results()
    measured = [one for one in all_figures(results) if one.response is not None]
    axes = _where_time_goes(measured, results).axes[0]
    for place, one in enumerate(measured):
        assert one.response is not None
        bars = [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == place]
        assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(one.response.median)
