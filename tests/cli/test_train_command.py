"""What `flashsloth train` shows: a bar on a terminal, and what a recipe asks for that is not there."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from flashsloth.cli import terminal
from flashsloth.cli.train import _watcher
from flashsloth.training.run_log import Progress

NUMBERS = {"loss": 1.5, "samples_per_second": 8.0, "seconds_per_step": 60.0, "mfu": 0.25, "peak_memory_gb": 3.0}


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def test_a_terminal_has_a_bar_with_the_time_left_and_the_log_above(screen: Console) -> None:
    logger = logging.getLogger(terminal.PACKAGE_LOGGER)
    before = list(logger.handlers), logger.level
    terminal.show_log(console=screen)
    try:
        with _watcher(screen) as watch:
            watch(Progress("1-instruction", 10, 100, NUMBERS))
            logger.info("a line of the log [0/1]")
    finally:
        logger.handlers, logger.level = before
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert "10/100" in shown
    assert "1 h 30 min left" in shown
    assert "loss 1.5000 · 8 samples/s · MFU 25.0% · 3.00 GB at most" in shown
    assert "a line of the log [0/1]\n" in shown


def test_the_log_is_whole_lines_elsewhere() -> None:
    plain = Console(file=io.StringIO(), width=20)
    logger = logging.getLogger(terminal.PACKAGE_LOGGER)
    before = list(logger.handlers), logger.level
    terminal.show_log(logging.WARNING, plain)
    try:
        logger.info("unseen")
        logger.warning("a line that is longer than twenty characters, and [not markup]")
    finally:
        logger.handlers, logger.level = before
    assert isinstance(plain.file, io.StringIO)
    assert plain.file.getvalue().count("\n") == 1
    assert plain.file.getvalue().endswith("a line that is longer than twenty characters, and [not markup]\n")
