"""Import every module as if no extra were installed and the system were not POSIX.

Run as a script: with the minimal install by `make budgets`, with everything by `test_import.py`. What a module needs of
an extra, or of one system, it imports where it is used.
"""

from __future__ import annotations

import builtins
import importlib
import pkgutil
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
POSIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
POSIX_NAMES = {
    "os": ("fork", "geteuid", "getuid", "killpg", "register_at_fork", "sched_getaffinity", "setsid", "statvfs"),
    "signal": ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2", "pthread_sigmask"),
}
PLUG_INS = {"flashsloth.evaluation.lmms_eval_model": "pip install lmms-eval"}
"""Modules for another program, which say in one line how to get it where it is not installed."""
OF_SERVER = {
    f"flashsloth.serving.{name}"
    for name in (
        "api_document",
        "app",
        "chat",
        "event_stream",
        "guards",
        "http_protocol",
        "metrics",
        "page_files",
        "pictures",
        "ray_batch",
        "ray_deployment",
        "responses",
        "server",
        "service",
        "systemone",
        "tokenize",
    )
}
"""Modules that only a server imports, which needs the extra `serve`, or `scale`, from its first line on."""
MODULE_OF = {"pytest-xdist": "xdist", "types-PyYAML": "types_PyYAML", "pillow-heif": "pillow_heif"}


def extras() -> set[str]:
    """The modules of everything that pyproject.toml has as an extra."""
    optional = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = {
        requirement.split(">")[0].split("=")[0].split("[")[0] for group in optional.values() for requirement in group
    }
    return {MODULE_OF.get(name, name) for name in named - {"flashsloth"}}


def hide() -> None:
    """Take from this project's modules, and from nobody else's, what only some machines have."""
    hidden = {*POSIX_MODULES, *extras()}
    poorer = {name: without_names(name, missing) for name, missing in POSIX_NAMES.items()}
    import_module = builtins.__import__

    def import_for(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and globals and globals.get("__name__", "").startswith("flashsloth"):
            if name.partition(".")[0] in hidden:
                raise ModuleNotFoundError(f"it imports {name}, which not every machine has")
            if name in poorer:
                return poorer[name]
        return import_module(name, globals, locals, fromlist, level)

    builtins.__import__ = import_for


def without_names(module: str, missing: Iterable[str]) -> ModuleType:
    """A copy of a module that lacks some names."""
    copy = ModuleType(module)
    vars(copy).update(
        {name: value for name, value in vars(importlib.import_module(module)).items() if name not in missing}
    )
    return copy


def main() -> int:
    """Import everything; the number of modules goes to stdout, what failed to stderr."""
    hide()
    import flashsloth

    failed = []
    names = [found.name for found in pkgutil.walk_packages(flashsloth.__path__, "flashsloth.", onerror=failed.append)]
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            if name in PLUG_INS and PLUG_INS[name] in str(error):
                continue
            if name in OF_SERVER and isinstance(error, ModuleNotFoundError):
                continue
            failed.append(f"{name}: {type(error).__name__}: {error}")
    print(f"{len(names)} modules import without any extra and without what only POSIX systems have")
    print(*failed, sep="\n", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
