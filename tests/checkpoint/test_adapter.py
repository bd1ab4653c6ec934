"""What an adapter's folder says, and what is said when it does not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from flashsloth.checkpoint.adapter import (
    ADAPTER_CONFIG,
    BASE_FILE,
    AdapterError,
    Base,
    base_digest,
    is_adapter,
    read_adapter,
)


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


def test_it_names_its_base_and_holds_it_by_its_digest(adapter: Path, base: Path) -> None:
    found = read_adapter(adapter)
    assert found.base == Base(str(base), base_digest(base), "none")
    assert found.base_folder() == base
    assert found.settings["base_model_name_or_path"] == str(base)
    assert not (adapter / "README.md").exists()


def test_adapters_are_told_from_checkpoints(adapter: Path, base: Path, tmp_path: Path) -> None:
    assert is_adapter(adapter)
    assert not is_adapter(base)
    assert not is_adapter(tmp_path)


def test_what_is_no_adapter_is_refused(base: Path, copied: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="holds a whole checkpoint, expected an adapter"):
        read_adapter(base)
    with pytest.raises(AdapterError, match=f"holds no {ADAPTER_CONFIG}"):
        read_adapter(tmp_path)
    (copied / ADAPTER_CONFIG).write_text('{"peft_type": "IA3"}', encoding="utf-8")
    with pytest.raises(AdapterError, match="an adapter of type 'IA3', expected 'LORA'"):
        read_adapter(copied)


def test_an_adapter_made_elsewhere_has_a_base_without_a_digest(copied: Path, base: Path) -> None:
    (copied / BASE_FILE).unlink()
    assert read_adapter(copied).base == Base(str(base))


def test_a_base_that_is_gone_or_an_adapter_is_refused(copied: Path, base: Path, adapter: Path) -> None:
    with pytest.raises(AdapterError, match="is an adapter itself: merge it first"):
        read_adapter(copied).base_folder(adapter)
    Base(str(base.parent / "moved"), base_digest(base)).save(copied)
    with pytest.raises(AdapterError, match="say where it is now with `flashsloth merge --base`") as error:
        read_adapter(copied).base_folder()
    assert "\n" not in str(error.value)
    assert read_adapter(copied).base_folder(base) == base


def test_a_base_file_that_is_not_ours_is_refused(copied: Path) -> None:
    (copied / BASE_FILE).write_text(json.dumps({"name": "x", "sum": 1}), encoding="utf-8")
    with pytest.raises(AdapterError, match=r"holds \['name', 'sum'\], expected"):
        read_adapter(copied)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 10**9}, "r is 1000000000, but adapter_model.safetensors has rank 3"),
        ({"rank_pattern": {"q_proj": 10**9}}, "r is 1000000000, but"),
        ({"r": 4.5}, "r is 4.5, expected a whole number"),
        ({"r": None}, "r is None, expected a whole number"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x', expected a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, expected a number"),
        ({"target_modules": 5}, "target_modules is 5, expected names"),
        ({"alpha_pattern": "x"}, "alpha_pattern is 'x', expected a number a layer"),
    ],
)
def test_settings_that_peft_would_stumble_over_are_named(copied: Path, settings: dict[str, Any], message: str) -> None:
    file = copied / "adapter_config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**said, **settings}), encoding="utf-8")
    with pytest.raises(AdapterError, match=re.escape(message)):
        read_adapter(copied).tensors()
