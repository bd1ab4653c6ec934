"""Settings that could never be met are refused before a model is loaded."""

from __future__ import annotations

import pytest

from flashsloth.serving.config import ServeConfig, ServeError


@pytest.mark.parametrize("host", ["http://a.org", "a.org/v1", "a b", "a.org,b.org"])
def test_what_no_host_can_be_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match=r"--allow-host is .*expected HOST or HOST:PORT, without http:// and path"):
        ServeConfig(allow_hosts=(host,))


@pytest.mark.parametrize("origin", ["a.org", "https://a.org/page", "https://", "https://a.org,https://b.org"])
def test_what_no_origin_can_be_is_refused(origin: str) -> None:
    with pytest.raises(ServeError, match=r"--allow-origin is .*expected https://HOST or https://HOST:PORT"):
        ServeConfig(allow_origins=(origin,))


def test_names_and_sites_are_taken_as_they_are_written() -> None:
    hosts = ("a.org", "A.org:8000", "[::1]", "fe80::1", "ключ.example", "*")
    origins = ("https://a.org", "http://localhost:3000/", "chrome-extension://abc", "null", "*")
    assert ServeConfig(allow_hosts=hosts, allow_origins=origins).allow_hosts == hosts
