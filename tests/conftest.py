"""How the suite is run: one thread and no hub, what a machine lacks left out and named, slow tests only when asked for.

The process that hands tests out to others imports nothing heavy; those that run them take `tiny_fixtures.py` in too.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections import Counter
from functools import cache, partial
from typing import Any

import pytest

MOST_CORES = 8
"""That a run of the suite takes."""
FORK_SERVER = "FLASHSLOTH_TESTS_FORK_SERVER"
"""The environment's name of the folder where `forked.py` has its server."""
LACKS = "this machine lacks "
LACKING = "lacking"
"""The name under which a process that runs tests tells the one that hands them out what this machine lacks."""
TOLD = pytest.StashKey[set[str]]()
"""Where that one keeps it."""

# One thread here and in every process of a test: tiny matrices only lose by being shared among cores, most of all on a
# busy machine. Before any import, which is when libraries read it.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", HF_HUB_OFFLINE="1")


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C as a terminal's program hears it; and, where tests are run, what nearly all of them import."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so `nohup pytest &` and others begin
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # a folder for what all processes share
        os.environ[FORK_SERVER] = folder = tempfile.mkdtemp(prefix="flashsloth-tests-")
        config.add_cleanup(partial(shutil.rmtree, folder))
    if not hands_out(config):
        gc.disable()  # imports and collection make no garbage worth looking for; until `pytest_collection_finish`
        config.pluginmanager.import_plugin("tiny_fixtures")


def hands_out(config: pytest.Config) -> bool:
    """Whether this process leaves all tests to others (`pytest -n`)."""
    return config.getoption("dist", "no") != "no" and not config.option.collectonly


@cache
def lacking() -> frozenset[str]:
    """What tests may need of a processor, or of an accelerator, and this machine does not have."""
    import torch

    from flashsloth.kernels.capabilities import missing

    return frozenset([*map(str, missing()), *(() if torch.cuda.is_available() else ("cuda",))])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: one more than cores, since tests wait for processes of their own; each takes 1.5 GB."""
    return min(os.cpu_count() or 1, MOST_CORES) + 1


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes by their number: what is in them, such as a colour profile's date, may differ from process to process."""
    return f"{argname}-{len(val)}" if isinstance(val, bytes | bytearray) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what `@pytest.mark.needs(...)` says that this machine cannot do."""
    from flashsloth.kernels.capabilities import Capability

    for marker in item.iter_markers("needs"):
        unknown = set(marker.args) - {*Capability, "cuda"}
        assert not unknown, f"needs({unknown}): expected some of {[*Capability, 'cuda']}"
        if found := [name for name in marker.args if name in lacking()]:
            pytest.skip(LACKS + ", ".join(found))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that handed the tests out what is lacking."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[LACKING] = sorted(lacking())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it."""
    found = getattr(node, "workeroutput", {}).get(LACKING, [])
    node.config.stash[TOLD] = node.config.stash.get(TOLD, set()) | set(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the paths that this machine could not run, and how many tests of each."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    left_out = Counter(reason.partition(LACKS)[2] for reason in reasons if LACKS in reason)
    without = config.stash.get(TOLD, set()) if hands_out(config) else lacking()
    paths = [f"{name} ({left_out[name]} tests)" for name in sorted({*without, *left_out})]
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
    gc.enable()
