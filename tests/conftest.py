"""A tiny FlashSloth for every test that needs one; `tiny.py` says how it is made."""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from typing import Any

import huggingface_hub.constants
import pytest
import tiny
import torch
from tiny import TinyModelMaker
from transformers import PreTrainedTokenizerFast

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.speed.abilities import Ability, missing

LACKING = {*missing(), *(() if torch.cuda.is_available() else ("cuda",))}
"""What tests may need of a processor, or of an accelerator, and this machine does not have."""
MOST_CORES = 8
"""That a run of the suite takes."""
LACKS = "this machine lacks "


def pytest_configure(config: pytest.Config) -> None:
    """One thread and no hub, here and in every process of a test; and Ctrl-C as a terminal's program hears it."""
    torch.set_num_threads(1)  # tiny matrices only lose by being shared among cores, most of all on a busy machine
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    huggingface_hub.constants.HF_HUB_OFFLINE = True  # which was read when it was imported
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so `nohup pytest &` and others begin
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: one more than cores, since tests wait for processes of their own; each takes 1.5 GB."""
    return min(os.cpu_count() or 1, MOST_CORES) + 1


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes by their number: what is in them, such as a colour profile's date, may differ from process to process."""
    return f"{argname}-{len(val)}" if isinstance(val, bytes | bytearray) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what `@pytest.mark.needs(...)` says that this machine cannot do."""
    for marker in item.iter_markers("needs"):
        unknown = set(marker.args) - {*Ability, "cuda"}
        assert not unknown, f"needs({unknown}): expected some of {[*Ability, 'cuda']}"
        lacking = [name for name in marker.args if name in LACKING]
        if lacking:
            pytest.skip(LACKS + ", ".join(lacking))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the paths that this machine could not run, and how many tests of each."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    left_out = Counter(reason.partition(LACKS)[2] for reason in reasons if LACKS in reason)
    paths = [f"{name} ({left_out[name]} tests)" for name in sorted({*LACKING, *left_out})]
    said = f"not run, since {LACKS}them: {', '.join(paths)}" if paths else "this machine ran every path"
    terminalreporter.write_line(said)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow tests out unless markers are chosen with `-m`."""
    if not config.option.markexpr:
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no later garbage collection need look at it, and runs ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return tiny.make_tokenizer()


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer: PreTrainedTokenizerFast) -> FlashSlothProcessor:
    return tiny.make_processor(tiny_tokenizer, tiny.make_config(tiny_tokenizer))


@pytest.fixture
def make_tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> TinyModelMaker:
    """A maker of tiny models: configuration fields as keywords, and `attention`."""

    def make(attention: str = "eager", **changes: Any) -> FlashSlothForConditionalGeneration:
        return tiny.make_model(tiny.make_config(tiny_tokenizer, **changes), attention=attention)

    return make


@pytest.fixture
def tiny_config(tiny_tokenizer: PreTrainedTokenizerFast) -> FlashSlothConfig:
    return tiny.make_config(tiny_tokenizer)


@pytest.fixture
def tiny_model(make_tiny_model: TinyModelMaker) -> FlashSlothForConditionalGeneration:
    return make_tiny_model()
