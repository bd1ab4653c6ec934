"""Where the processes of a run meet, also after some have died."""

from __future__ import annotations

import logging

import pytest
from torch import distributed

from flashsloth.training.distributed import OWN_STORE, _apart_from_the_dead

LEFT_BY_THE_DEAD = "address"


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> distributed.TCPStore:
    """The environment of the first of two processes that torchrun started again, and its store."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "3",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return store


def test_what_dead_processes_left_is_not_found(torchrun: distributed.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    dead = _apart_from_the_dead()["store"]
    dead.set(LEFT_BY_THE_DEAD, "nobody's")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    place = _apart_from_the_dead()
    assert (place["rank"], place["world_size"]) == (0, 2)
    assert not place["store"].check([LEFT_BY_THE_DEAD])
    assert dead.check([LEFT_BY_THE_DEAD])


def test_several_nodes_are_told_what_torchrun_needs(
    torchrun: distributed.TCPStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with caplog.at_level(logging.WARNING, "flashsloth"):
        assert _apart_from_the_dead() == {}
    assert f"torchrun needs {OWN_STORE} in its environment on each" in caplog.text
    caplog.clear()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert _apart_from_the_dead() == {}
    assert not caplog.text


def test_without_torchruns_store_processes_meet_as_usual(
    torchrun: distributed.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert _apart_from_the_dead() == {}
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    assert _apart_from_the_dead() == {}
