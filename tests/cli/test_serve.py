"""`flashsloth serve`: what it prints works, SIGTERM ends it well, and mistakes cost no loading."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flashsloth.cli.app import main
from flashsloth.cli.serve import missing_names, own_name, read_keys
from flashsloth.cli.terminal import CommandError
from flashsloth.serving.config import ServeConfig

PATIENCE = 120


def test_what_it_prints_can_be_typed(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("# ours\nsecret-1\n\nsecret-2\n")
    command = [sys.executable, "-m", "flashsloth", "serve", "--port", "0", "--api-key-file", str(keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            where, curl = server.stdout.readline(), server.stdout.readline()
            assert "nano on cpu in float32" in where
            reply = _as_curl(shlex.split(curl.replace("$KEY", "secret-2")))
            with urllib.request.urlopen(where.split()[-1], timeout=PATIENCE) as page:
                assert b"<html" in page.read()
        finally:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert reply["choices"][0]["message"]["content"] == "red"
    [line] = [json.loads(line) for line in log.splitlines() if "/v1/chat" in line]
    assert line["status"] == 200
    assert "secret" not in log


def _as_curl(words: list[str]) -> dict:
    """What curl would get."""
    assert words[0] == "curl"
    headers = [words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H"]
    body = words[words.index("-d") + 1].encode()
    asked = urllib.request.Request(words[1], body, dict(headers))
    with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--port", "70000"], "port is 70000; expected 0 to 65535"),
        (["--max-running", "0"], "max_running is 0; expected a whole number of at least 1"),
        (["--deadline", "nan"], "deadline is nan; expected seconds"),
        (["--api-key-file", "missing.txt"], "missing.txt: No such file"),
        (["nowhere/at/all"], "nowhere/at/all"),
        (["--adapter", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", *arguments]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert said in output.err
    assert len(output.err.splitlines()) == 1


def test_keys_are_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for content in (b"", b"# none\n", b"with space\n", "schlüssel".encode(), b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(CommandError) as refused:
            read_keys(file)
        assert "space" not in str(refused.value)
        assert "schl" not in str(refused.value)


def test_a_model_has_its_folders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine" / "final"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert own_name(None, None) == "nano"
    assert own_name(str(folder), None) == "final"
    assert own_name(os.curdir, None) == "final"
    assert own_name("someone/model", None) == "someone/model"


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [one for one in sys.modules if one.startswith(("flashsloth.serving", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", "--port", "0"]) == 2
    assert "needs fastapi, which is not installed: pip install 'flashsloth[serve]'" in capsys.readouterr().err


def test_who_opens_it_to_others_is_told_that_it_needs_a_name() -> None:
    for host in ("0.0.0.0", "::"):
        [line] = missing_names(ServeConfig(host=host, api_keys=("a",)))
        assert "--allow-host" in line
    assert missing_names(ServeConfig(host="0.0.0.0", allow_hosts=("models.example",))) == []
    assert missing_names(ServeConfig()) == []
