"""Servers of FlashSloth and of a peer, asked as those of true size are, by small models."""

from pathlib import Path

import pytest

from flashsloth.benchmark.checkpoints import NANO
from flashsloth.benchmark.serving import true_size

pytest.importorskip("fastapi")
SMALL = {
    "vision": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "text": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("peer", [False, True])
def test_each_client_gets_its_answer(peer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = true_size.make_peer_checkpoint
    monkeypatch.setattr(true_size, "make_peer_checkpoint", lambda folder: made(folder, SMALL))
    monkeypatch.setattr(true_size, "TRUE_SIZE", NANO)
    said: list[str] = []
    found = list(true_size.measure_true_size(tmp_path, said.append, peer=peer))
    assert [one.clients for one in found] == list(true_size.CLIENTS)
    assert not any(one.wrong for one in found)
    assert all(0 < one.first_token <= one.seconds for one in found)
    assert len(said) == 2 + len(found)
