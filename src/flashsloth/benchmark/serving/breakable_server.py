"""`flashsloth serve`, with faults that it makes when it is asked to: what tests of its robustness need.

a request with the seed POISON      raises in the pass that makes the third token of its answer, whoever is beside it
SIGUSR1                             the engine's next step raises
SIGUSR2                             the engine's next step never ends
"""

from __future__ import annotations

import runpy
import signal
import sys
import time
from typing import Any, NoReturn

POISON = 666_666
POISONED_TOKEN = 2
HANG_SECONDS = 3600.0


def break_engine(engine: Any) -> None:
    """Let an engine make faults."""
    decode = engine.runner.decode

    def decode_or_raise(some: Any) -> Any:
        if any(one.sampling.params.seed == POISON and len(one.sampling.tokens) == POISONED_TOKEN for one in some):
            raise RuntimeError("poisoned")
        return decode(some)

    def fail() -> NoReturn:
        raise RuntimeError("broken by a signal")

    def hang() -> None:
        time.sleep(HANG_SECONDS)

    engine.runner.decode = decode_or_raise
    for number, fault in ((signal.SIGUSR1, fail), (signal.SIGUSR2, hang)):
        signal.signal(number, lambda *_, fault=fault: setattr(engine, "step", fault))


def main(arguments: list[str]) -> None:
    """Run the command with these arguments, and end with its exit status."""
    from flashsloth.serving import service

    made = service.Service.__init__

    def make(own: service.Service, sloth: Any, config: Any) -> None:
        made(own, sloth, config)
        break_engine(sloth.engine)

    service.Service.__init__ = make  # type: ignore[method-assign,assignment]
    sys.argv = ["flashsloth", "serve", *arguments]
    runpy.run_module("flashsloth", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
