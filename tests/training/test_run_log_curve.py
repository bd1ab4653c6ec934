"""The curve of a run: a picture of whatever was logged, and a running mean that does not lean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashsloth.training.run_log import FEW_POINTS, draw_curve, running_mean


@pytest.mark.parametrize("points", [2, 2 * FEW_POINTS])
@pytest.mark.parametrize("scores", [{}, {"eval_right": 0.5, "eval_right_colour": 1.0}])
def test_a_log_becomes_a_picture(tmp_path: Path, points: int, scores: dict[str, float]) -> None:
    log = [{"step": step, "loss": 1 / (1 + step)} for step in range(points)]
    draw_curve([*log, {"step": points, "eval_loss": 0.1, **scores}] if scores else log, tmp_path / "loss.png", "alone")
    with Image.open(tmp_path / "loss.png") as curve:
        assert curve.format == "PNG"
        assert curve.width > curve.height
        assert len(curve.convert("RGB").getcolors(1 << 16)) > 10


def test_the_running_mean_follows_a_straight_line_to_its_ends() -> None:
    line = np.linspace(3.0, 1.0, 200)
    np.testing.assert_allclose(running_mean(line), line)


def test_the_running_mean_takes_what_is_around() -> None:
    values = np.zeros(100)
    values[50] = 5.0
    smooth = running_mean(values)
    assert smooth[50] == pytest.approx(1.0)  # five of a hundred
    assert np.flatnonzero(smooth > 1e-9).tolist() == [48, 49, 50, 51, 52]
