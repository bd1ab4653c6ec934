"""Where a server listens, and the one line that says why it does not."""

from __future__ import annotations

import socket

import pytest

from flashsloth.serving.config import ServeConfig
from flashsloth.serving.listening import ListenError, bind, url_of


def test_a_free_port() -> None:
    config = ServeConfig(port=0)
    [bound] = bind(config)
    with bound:
        port = bound.getsockname()[1]
        assert url_of(config, [bound]) == f"http://127.0.0.1:{port}"
        assert bound.proto == socket.IPPROTO_TCP
        with pytest.raises(ListenError, match=rf"^port {port} at 127\.0\.0\.1 is taken .* --port"):
            bind(ServeConfig(port=port))
    for one in bind(ServeConfig(port=port)):  # at once, though there may be connections that are not quite over
        one.close()


def test_a_name_with_several_addresses() -> None:
    config = ServeConfig(host="localhost", port=0)
    bound = bind(config)
    assert len({one.getsockname()[1] for one in bound}) == 1
    assert url_of(config, bound).startswith("http://localhost:")
    for one in bound:
        one.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1"])
def test_not_beyond_this_machine_without_a_key(host: str) -> None:
    with pytest.raises(ListenError, match="no key is required: give keys with --api-key-file") as caught:
        bind(ServeConfig(host=host, port=0))
    assert "\n" not in str(caught.value)


def test_beyond_this_machine_with_a_key() -> None:
    config = ServeConfig(host="0.0.0.0", port=0, api_keys=("a",))
    [bound] = bind(config)
    with bound:
        assert url_of(config, [bound]).startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.0.2.1", "is not an address of this machine"),
        ("no-such-host.invalid", "no address is known for the host"),
        ("a b", "no address is known for the host"),
        ("x" * 300, "no address is known for the host"),
    ],
)
def test_where_it_cannot(host: str, said: str) -> None:
    with pytest.raises(ListenError, match=said):
        bind(ServeConfig(host=host, port=0, api_keys=("a",)))
