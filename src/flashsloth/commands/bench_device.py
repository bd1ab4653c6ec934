"""The part of `flashsloth bench --suite gpu` that is not single answers: many pictures, training, driver and clocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashsloth.benchmark.device_bench import DeviceResults
    from flashsloth.benchmark.subjects import Suite


def measure_busy(
    suite: Suite, only: str | None, job: tuple[int, int, int], say: Callable[[str], None]
) -> DeviceResults | None:
    """Measure what a suite names beyond single answers; None if it names nothing.

    Args:
        suite: which subjects do it.
        only: these of them, with commas between; None for all.
        job: text tokens, new tokens and seed of single answers.
        say: told what is done.
    """
    wanted = None if only is None else [part.strip() for part in only.split(",")]
    names = [name for name in suite.busy if wanted is None or name in wanted]
    trained = [name for name in suite.trained if wanted is None or name in wanted]
    if not names and not trained:
        return None
    import sys

    from flashsloth.benchmark.device_bench import DeviceSettings, measure_device
    from flashsloth.benchmark.job import StandardJob
    from flashsloth.benchmark.subjects import SUBJECTS
    from flashsloth.benchmark.worker_process import WorkerProcess

    command = [sys.executable, "-m", "flashsloth.benchmark.device_worker"]
    specs = [SUBJECTS[name] for name in names]
    settings = DeviceSettings(suite.device, StandardJob(*job))
    return measure_device(specs, trained, settings, lambda: WorkerProcess(None, command), say)


def earlier_busy(source: Path) -> DeviceResults | None:
    """What an earlier run left beside its results, if it left any."""
    from flashsloth.benchmark.device_bench import DEVICE_FILE, load_device_results

    file = (source if source.is_dir() else source.parent) / DEVICE_FILE
    return load_device_results(file) if file.is_file() else None


def show_busy(results: DeviceResults) -> None:
    """Print its tables."""
    from flashsloth.benchmark.device_report import print_device_results
    from flashsloth.commands import terminal

    print_device_results(results, terminal.stdout())


def write_busy(results: DeviceResults, folder: Path) -> list[Path]:
    """Write its files; returns their paths."""
    from flashsloth.benchmark.device_report import write_device_report

    return write_device_report(results, folder)


__all__ = ["earlier_busy", "measure_busy", "show_busy", "write_busy"]
