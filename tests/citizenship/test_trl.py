"""TRL's SFTTrainer, in an environment of its own: the registered model and processor learn from pictures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

TRL = "trl==1.16.0"
REPOSITORY = Path(__file__).resolve().parents[2]
WAYS = ("messages", "text", "answers alone", "prompt and completion", "recomputation")


@pytest.fixture(scope="module")
def python_with_trl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees what this one sees, and TRL with what it needs beside."""
    folder = tmp_path_factory.mktemp("trl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    under_test = sysconfig.get_paths()["purelib"]
    (Path(paths["purelib"]) / "under_test.pth").write_text(f"import site; site.addsitedir({under_test!r})\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "-c", REPOSITORY / "constraints.txt", TRL], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"pip cannot get {TRL}: {done.stderr.strip().splitlines()[-1:]}")
    return python


def steps(python: Path, folder: Path, *ways: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("sft_step.py")
    done = subprocess.run([python, script, folder, *ways], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"way"')]


@pytest.mark.slow
def test_sft_trainer_learns_from_pictures(python_with_trl: Path, tmp_path: Path) -> None:
    told = steps(python_with_trl, tmp_path, *WAYS)
    assert [found["way"] for found in told] == list(WAYS)
    for found in told:
        assert all(math.isfinite(loss) for loss in found["losses"])
        assert found["losses"][-1] < found["losses"][0]
        assert min(found["moved"].values()) > 0, found["moved"]
    messages, text, answers, completions, recomputed = (found["losses"] for found in told)
    assert messages == text  # a conversation written down is the same conversation
    assert messages == pytest.approx(recomputed, rel=1e-5)
    assert messages != answers
    assert answers == completions  # TRL joins their ids itself, and hands on the position tensors of the prompt
