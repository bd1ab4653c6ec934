"""A server of the shipped model in a process of its own, whose engine makes one step for each line of its input.

python paced_server.py PORT      0 for one that is free; prints the page's address; at the input's end it is free
"""

from __future__ import annotations

import sys
from typing import Any

from served import nano

from flashsloth.inference.engine.engine import Engine
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.server import serve
from flashsloth.serving.service import Service


def main(port: int) -> int:
    config = ServeConfig(port=port)
    service, real = Service(nano(), config), Engine.step

    def step(engine: Engine) -> Any:
        sys.stdin.readline()
        return real(engine)

    def begin(address: str) -> None:
        Engine.step = step  # type: ignore[method-assign]
        print(address.rstrip("/") + "/", flush=True)

    return serve(create_app(service), config, on_ready=begin)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
