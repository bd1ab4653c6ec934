"""An lmms-eval that is installed or lies in a folder, read as text: nothing of it is imported or run.

In: its folder, or what Python would import. Out: a task's YAML with what it includes, the Python files that its rules
stand in, and one digest of both, by which 0.7.3's are known.

A task is `tasks/FOLDER/NAME.yaml`. Its `!function utils.some_name` become those words; a file that it includes stands
below it and is overridden, key by key. Its Python files are those that such words name, and what these import from
`lmms_eval.tasks`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flashsloth.evaluation.task import EvaluationError

PACKAGE, DISTRIBUTION, TASKS = "lmms_eval", "lmms-eval", "tasks"
FUNCTION = "!function"
INCLUDED_DEEPEST = 8
"""Files that include one another."""
ASKING, COUNTING = ("doc_to_", "process_"), ("filter_list", "metric_list")
"""Beginnings and names of the keys that say by which code a task asks and counts."""
JUDGE = re.compile(r"""getenv\(\s*["']MODEL_VERSION["']\s*,\s*["']([^"']+)["']""")
"""The judge that its code takes where $MODEL_VERSION names none."""


class _Loader(yaml.SafeLoader):
    """PyYAML's, to which a tag that it does not know is a word before the value."""


def _tagged(loader: _Loader, tag: str, node: yaml.Node) -> str:
    value = loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else ""
    return f"!{tag} {value}".strip()


_Loader.add_multi_constructor("!", _tagged)


@dataclass(frozen=True)
class LmmsTask:
    """What one task is there.

    Attributes:
        config: its YAML, whole.
        digest: of its rules: what its YAML says of asking and counting, and its Python files.
        judge: that its code takes; None where none is found.
    """

    config: dict[str, Any]
    digest: str
    judge: str | None


@dataclass(frozen=True)
class LmmsEval:
    """One lmms-eval.

    Attributes:
        folder: of its package.
        version: None where nothing says it.
    """

    folder: Path
    version: str | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{DISTRIBUTION} {self.version or 'of a version that is not known'}"

    def read_task(self, folder: str, name: str) -> LmmsTask | None:
        """A task by its folder and name; None where there is no such file.

        Raises:
            EvaluationError: where a file cannot be read.
        """
        path = self.folder / TASKS / folder / f"{name}.yaml"
        if not path.is_file():
            return None
        config = self._config(path)
        files = self._python_files(path.parent, _functions(config))
        rules = {key: value for key, value in config.items() if key.startswith(ASKING) or key in COUNTING}
        total = hashlib.blake2b(json.dumps(rules, sort_keys=True, default=str).encode(), digest_size=8)
        judges = []
        for file in files:
            text = _read(file)
            total.update(f"\n{file.relative_to(self.folder).as_posix()}\n{text}".encode())
            judges += JUDGE.findall(text)
        return LmmsTask(config, total.hexdigest(), judges[0] if judges else None)

    def _config(self, path: Path, deep: int = 0) -> dict[str, Any]:
        if deep > INCLUDED_DEEPEST:
            raise EvaluationError(f"{path} is included by a file that it includes: expected an end to that")
        try:
            found = yaml.load(_read(path), _Loader)  # a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise EvaluationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise EvaluationError(f"{path} holds {type(found).__name__}, expected a task's keys")
        included = found.pop("include", [])
        names = [included] if isinstance(included, str) else included
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise EvaluationError(f"{path} includes {names!r:.80}, expected names of files")
        below: dict[str, Any] = {}
        for name in reversed(names):
            below |= self._config(path.parent / name, deep + 1)
        return below | found

    def _python_files(self, folder: Path, names: Iterable[str]) -> list[Path]:
        """Those that functions named in a YAML stand in, and what they import from the package's tasks."""
        todo = [folder / f"{name}.py" for name in names]
        found: set[Path] = set()
        while todo:
            path = todo.pop()
            if path not in found and path.is_file():
                found.add(path)
                todo += self._imported(path)
        return sorted(found)

    def _imported(self, path: Path) -> list[Path]:
        try:
            with warnings.catch_warnings(action="ignore"):  # about its style
                tree = ast.parse(_read(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise EvaluationError(f"{path} is not Python that can be read ({error})") from error
        prefix = f"{PACKAGE}.{TASKS}."
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules += [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
        return [
            self.folder.joinpath(*one.split(".")[1:]).with_suffix(".py") for one in modules if one.startswith(prefix)
        ]


def _functions(value: Any) -> list[str]:
    """Names of the modules that a YAML's functions stand in."""
    if isinstance(value, dict):
        return [name for one in value.values() for name in _functions(one)]
    if isinstance(value, list):
        return [name for one in value for name in _functions(one)]
    if isinstance(value, str) and value.startswith(f"{FUNCTION} "):
        return ["/".join(value.split()[-1].split(".")[:-1])]
    return []


def _read(path: Path) -> str:
    """A text file, its lines ending as on Unix."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}): install {DISTRIBUTION} again") from error


def find_lmms_eval(path: Path | None = None) -> LmmsEval | None:
    """The one of a folder (its package, or what holds that), else the one that Python would import, if there is one.

    Raises:
        EvaluationError: where the folder holds none.
    """
    if path is not None:
        folder = next((one for one in (path, path / PACKAGE) if (one / TASKS).is_dir()), None)
        if folder is None:
            raise EvaluationError(
                f"--lmms-eval {path} has no {PACKAGE}/{TASKS}: name the folder that {DISTRIBUTION} lies in"
            )
        return LmmsEval(folder, _version(folder.resolve().parent))
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    folder = next((Path(one) for one in places if (Path(one) / TASKS).is_dir()), None)
    return None if folder is None else LmmsEval(folder, _version(folder.parent))


def _version(beside: Path) -> str | None:
    """Of what is installed in a folder."""
    found = importlib.metadata.distributions(name=DISTRIBUTION, path=[str(beside)])
    return next((one.version for one in found), None)
