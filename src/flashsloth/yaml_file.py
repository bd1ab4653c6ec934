"""YAML files that people write: recipes, experiments, questions.

In: a path. Out: what stands in the file; or one line about why nothing can be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_yaml(file: Path, what: str, example: str, error: type[ValueError]) -> Any:
    """What stands in a YAML file.

    Args:
        file: its path.
        what: what it should be, as in "recipe".
        example: where one can be seen.
        error: what is raised.

    Raises:
        error: if there is no such file, or it is not YAML.
    """
    if not file.is_file():
        raise error(f"no {what} at {file}: expected a YAML file, such as {example}")
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise error(f"{file} is not YAML: {' '.join(str(cause).split())}") from cause


__all__ = ["read_yaml"]
