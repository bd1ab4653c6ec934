"""Get transformers' own tests of models and processors, of the version that is installed.

In: the network. Out: `build/transformers-tests/VERSION/upstream/`, a package of the files `tests/*.py` of transformers'
source distribution. `build/` is not part of the repository: none of their files is ever committed.

Run as a script by `make test-citizenship`. It does nothing where they are there.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "upstream"
"""Their tests import one another relatively: they need a package, and any name will do."""
REPOSITORY = Path(__file__).resolve().parents[2]


def mixins_folder() -> Path:
    """The folder that holds the package of the installed version's tests, whether it is there or not."""
    return REPOSITORY / "build" / "transformers-tests" / version("transformers")


def are_there() -> bool:
    return (mixins_folder() / PACKAGE / "__init__.py").is_file()


def fetch() -> None:
    """Download the source distribution and take its tests out.

    Raises:
        OSError: if pip cannot get it, or it holds no tests.
    """
    wanted = version("transformers")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        source = ["--no-binary", "transformers", f"transformers=={wanted}", "--dest", folder]
        done = subprocess.run([*pip, *source], check=False)
        archives = list(Path(folder).glob("transformers-*.tar.gz"))
        if done.returncode or len(archives) != 1:
            raise OSError(f"pip could not get the source distribution of transformers {wanted}: see above")
        _take_tests(archives[0], mixins_folder() / PACKAGE)


def _take_tests(archive: Path, package: Path) -> None:
    """Write every `tests/**.py` of a source distribution into a package, its `__init__.py` last."""
    with tarfile.open(archive) as files:
        members = {Path(*Path(member.name).parts[2:]): member for member in files if _is_test(member)}
        if not members:
            raise OSError(f"{archive.name} holds no tests: look what its files are called")
        for name, member in members.items():
            content = files.extractfile(member)
            assert content is not None  # it is a file
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_bytes(content.read())
    for folder in {(package / name).parent for name in members} | {package}:
        (folder / "__init__.py").touch()


def _is_test(member: tarfile.TarInfo) -> bool:
    parts = Path(member.name).parts
    return (
        member.isfile() and len(parts) > 2 and parts[1] == "tests" and ".." not in parts and parts[-1].endswith(".py")
    )


if __name__ == "__main__":
    if not are_there():
        try:
            fetch()
        except OSError as error:
            sys.exit(f"fetch_mixins: {error}")
    print(f"transformers' own tests are in {mixins_folder()}")
