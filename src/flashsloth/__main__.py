"""`python -m flashsloth`: the command line, where no script of the environment is at hand (under torchrun, say)."""

import sys

from flashsloth.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
