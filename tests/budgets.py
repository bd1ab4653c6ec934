"""Hold the door open: importing the package and printing the help are quick and need no optional extra.

Run as a script (`make budgets`); not a test, because it measures time. Each figure is the best of three processes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

RUNS = 3
IMPORT_SECONDS, HELP_SECONDS = 2.0, 1.0
OPTIONAL = (
    "matplotlib",
    "psutil",
    "accelerate",
    "peft",
    "bitsandbytes",
    "datasets",
    "pytest",
    "tifffile",
    "imagecodecs",
    "pillow_heif",
    "fastapi",
    "uvicorn",
    "httptools",
    "llguidance",
    "prometheus_client",
)
NO_EXTRAS = f"""
import sys
for name in {OPTIONAL}:
    sys.modules[name] = None
import flashsloth
from flashsloth import cli
"""


def best_seconds(command: list[str]) -> float:
    """Wall-clock seconds of the quickest of some runs; a failing command stops everything."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> int:
    """Measure both, print them, and fail if one is over its budget."""
    subprocess.run([sys.executable, "-c", NO_EXTRAS], check=True)
    flashsloth = str(Path(sys.executable).parent / "flashsloth")
    over = False
    for name, command, budget in (
        ("import flashsloth", [sys.executable, "-c", "import flashsloth"], IMPORT_SECONDS),
        ("flashsloth --help", [flashsloth, "--help"], HELP_SECONDS),
    ):
        seconds = best_seconds(command)
        print(f"{name}: {seconds:.2f} s of {budget:.1f} s")
        over |= seconds > budget
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
