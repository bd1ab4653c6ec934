"""What an adapter is, and what is odd about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flashsloth.checkpoint.adapter import Base, base_digest
from flashsloth.checkpoint.inspect import inspect_adapter
from flashsloth.cli.app import main

RANK = 3
LAYERS, WIDTH, INNER = 4, 48, 96


def test_everything_is_counted(adapter: Path, base: Path) -> None:
    found = inspect_adapter(adapter)
    assert (found.rank, found.alpha, found.dropout, found.quantize) == (RANK, 2.0 * RANK, 0.0, "none")
    assert (found.base, found.base_digest) == (str(base), base_digest(base))
    assert found.targets == dict.fromkeys(("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"), LAYERS)
    attention, mlp = 4 * 2 * WIDTH * RANK, 2 * (WIDTH + INNER) * RANK
    assert found.parameters["low-rank matrices"] == LAYERS * (attention + mlp)
    assert list(found.parameters) == ["low-rank matrices", "SAP", "projector", "query tokens", "EmbQ"]
    assert found.dtypes == {"F32": found.total_parameters}
    assert found.remarks == []


def test_what_is_odd_is_said(adapter: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(adapter, tmp_path / "copied"))
    Base(str(tmp_path / "moved")).save(copied)
    (copied / "processor_config.json").unlink()
    remarks = " ".join(inspect_adapter(copied).remarks)
    for expected in ("no digest", "not there any more", "no processor_config.json"):
        assert expected in remarks


def test_info_shows_it(adapter: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(adapter)]) == 0
    out = capsys.readouterr().out
    for expected in ("LoRA adapter of rank 3, alpha 6", f"base: {base} (sha256:", "q_proj", "EmbQ", "adapter_model"):
        assert expected in out
    assert main(["info", str(adapter), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["rank"]) == ("adapter", RANK)
    assert found["total_bytes"] == (adapter / "adapter_model.safetensors").stat().st_size
