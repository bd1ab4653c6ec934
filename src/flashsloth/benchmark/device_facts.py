"""What an accelerator is and how it runs at the moment: name, driver, clocks, power, and the versions that use it.

In: nothing. Out: facts by name, as the driver's own tool writes them. Without a driver, only the versions.
"""

from __future__ import annotations

import shutil
import subprocess

from flashsloth.version import installed_versions

TOOL = "nvidia-smi"
QUERIES = (
    "name",
    "driver_version",
    "vbios_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "clocks.max.mem",
    "clocks_throttle_reasons.active",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "mig.mode.current",
)
"""What the tool is asked, in its own words."""
PACKAGES = ("torch", "transformers", "triton", "torchao", "accelerate", "flashsloth")
TOOL_SECONDS = 20.0


def device_facts() -> dict[str, str]:
    """Everything that is known of the first accelerator, and the versions of the packages."""
    import torch

    facts = _driver_facts()
    if torch.version.cuda is not None:
        facts["cuda"] = torch.version.cuda
    return {**facts, **installed_versions(PACKAGES)}


def parse_facts(line: str) -> dict[str, str]:
    """The tool's answer, a line of values in the order of :data:`QUERIES`; what it does not know is left out."""
    values = [value.strip() for value in line.split(",")]
    pairs = zip(QUERIES, values, strict=True)
    return {name: value for name, value in pairs if value and not value.startswith("[")}


def _driver_facts() -> dict[str, str]:
    """What the driver's tool says; nothing where there is none, or it does not know these words."""
    if shutil.which(TOOL) is None:
        return {}
    command = [TOOL, f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": f"{TOOL} failed: {' '.join(str(error).split())}"}
    lines = said.strip().splitlines()
    return parse_facts(lines[0]) if lines else {}


__all__ = ["device_facts", "parse_facts"]
