"""Make a virtual environment that begins with everything this one has, so that only what differs is installed in it.

Run as a script with the new folder as its argument.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


def main() -> None:
    folder = Path(sys.argv[1])
    venv.create(folder, clear=True, symlinks=True)
    asked = subprocess.run([folder / "bin" / "python", "-c", PURELIB], capture_output=True, text=True, check=True)
    begin = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(asked.stdout.strip(), "first_environment.pth").write_text(begin, encoding="utf-8")


if __name__ == "__main__":
    main()
