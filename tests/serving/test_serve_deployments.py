"""What stands around a server in `examples/serve`: proxies stand before two, programs read the rest."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest
import yaml
from running import wait_for
from served import EXAMPLES, PATIENCE, events_of, serving

FOLDER = EXAMPLES / "serve"
BODY = {"model": "nano", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "ray.yaml"])
def test_yaml_says_what_there_is(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert all(isinstance(part, dict) for part in yaml.safe_load_all(text))
    known = subprocess.run(
        [sys.executable, "-m", "flashsloth", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    for option in set(re.findall(r"--[a-z-]+", "".join(re.findall(r"(?:args|command): \[.*", text)))):
        assert option in known.stdout
    for path in re.findall(r"path: (/health/\w+)", text):
        assert path in ("/health/live", "/health/ready")


def test_the_settings_for_ray_are_those_that_it_takes() -> None:
    [application] = yaml.safe_load((FOLDER / "ray.yaml").read_text(encoding="utf-8"))["applications"]
    module, _, name = application["import_path"].partition(":")
    pytest.importorskip("ray")
    from flashsloth.serving import ray_deployment

    assert (module, hasattr(ray_deployment, name)) == (ray_deployment.__name__, True)
    assert ray_deployment.RaySettings(**application["args"]).config().model_names == ("nano",)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = (FOLDER / "flashsloth.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/flashsloth/bin/flashsloth " in unit
    (tmp_path / "flashsloth.service").write_text(
        unit.replace("/opt/flashsloth/bin/flashsloth", "/bin/true"), encoding="utf-8"
    )
    command = ["systemd-analyze", "verify", str(tmp_path / "flashsloth.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_a_proxy_before_two_servers(name: str, tmp_path: Path) -> None:
    """Its file with other ports; streams pass, figures do not, and a server that goes is not missed."""
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), f"{name} is not here: .ci/install_programs installs it"
        pytest.skip(f"{name} is not here")
    [port] = free_ports(1)
    file = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[name]
    text = (FOLDER / file).read_text(encoding="utf-8")
    with ExitStack() as stack:
        first = ExitStack()
        urls = [first.enter_context(serving()), stack.enter_context(serving())]
        stack.callback(first.close)
        one, two = (address.removeprefix("http://") for address in urls)
        text = text.replace("bind :8080", f"bind 127.0.0.1:{port}").replace("listen 8080", f"listen 127.0.0.1:{port}")
        text = text.replace("127.0.0.1:8001", one).replace("127.0.0.1:8002", two)
        for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):  # folders that only a machine's owner has
            text = text.replace("http {\n", f"http {{\n    {what}_temp_path {tmp_path};\n")
        text = text.replace("http {\n", "http {\n    access_log off;\n")
        (tmp_path / file).write_text(text, encoding="utf-8")
        options = {
            "haproxy": ["-f", str(tmp_path / file)],
            "nginx": ["-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / file)],
        }[name]
        more = [] if name == "haproxy" else ["-g", f"daemon off; pid {tmp_path}/pid;"]
        proxy = subprocess.Popen(
            [program, *options, *more], env={**os.environ, "SERVER_1": one, "SERVER_2": two}, stderr=subprocess.DEVNULL
        )
        stack.callback(proxy.wait, PATIENCE)
        stack.callback(proxy.terminate)
        url = f"http://127.0.0.1:{port}"

        def is_ready() -> bool:
            assert proxy.poll() is None
            try:
                return httpx2.get(f"{url}/health/ready", timeout=PATIENCE).status_code == 200
            except httpx2.TransportError:
                return False

        wait_for(is_ready)
        assert httpx2.get(f"{url}/metrics", timeout=PATIENCE).status_code in (403, 404)
        chat = f"{url}/v1/chat/completions"
        with httpx2.stream("POST", chat, json={**BODY, "stream": True}, timeout=PATIENCE) as reply:
            events = events_of("".join(reply.iter_text()))
        assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        page = httpx2.post(chat, json=BODY, headers={"Origin": url}, timeout=PATIENCE)  # what the page behind it sends
        assert page.status_code == 200, page.text
        first.close()
        statuses = [httpx2.post(chat, json=BODY, timeout=PATIENCE).status_code for _ in range(12)]
        assert statuses[-1] == 200
        assert {*statuses} <= {200, 503}
