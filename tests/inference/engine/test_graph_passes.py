"""Pictures replayed are pictures looked at."""

from __future__ import annotations

import pytest
import tiny
import torch
from graph_engines import CLOSE, LoadCalm, graph_engine


@pytest.mark.parametrize("name", ["phi", "hd"])
def test_features_are_the_models_own(name: str, load_calm: LoadCalm) -> None:
    sloth = load_calm(name)
    _, runner = graph_engine(sloth)
    assert runner.warm_up(4, 64, [sloth.writer.write([sloth.writer.user_message("Why?", 1)], None)]).pictures == 3
    captured = runner.counts.captured
    views = torch.cat([sloth.image_encoder.prepare([tiny.picture(number)]).made[0] for number in range(9)])
    expected = sloth.model.get_image_features(views.to(sloth.model.device))
    kept = {count: runner.encode(views[:count]) for count in (1, 2, 3, 4, 5, 9)}
    for count, found in kept.items():
        for part in ("last_hidden_state", "pooler_output"):
            torch.testing.assert_close(found[part], expected[part][:count], atol=CLOSE, rtol=CLOSE)
    assert runner.counts.captured == captured
    assert not runner.counts.degraded
