"""Where a server listens.

In: a host and a port. Out: sockets that are bound to it, or one line that says why not.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress

from flashsloth.serving.config import ServeConfig, ServeError

BACKLOG = 2048
MISSING_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""How a machine says that it has no IPv6, though its names do."""


class ListenError(ServeError):
    """A server cannot listen where it was told to."""


def bind(config: ServeConfig) -> list[socket.socket]:
    """Sockets bound to where a server listens, one for each of its host's addresses; port 0 is one port for all.

    Raises:
        ListenError: if it cannot listen there, or must not, since everybody could ask and no key is needed.
    """
    addresses = _addresses(config.host, config.port)
    if not config.api_keys and not all(_is_loopback(address) for _, address in addresses):
        raise ListenError(
            f"{config.host or 'every address'} can be reached from other machines, and no key is required: give keys "
            "with --api-key-file, or listen at 127.0.0.1"
        )
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in addresses:
        port = bound[0].getsockname()[1] if bound else config.port
        try:
            bound.append(_bound(family, (address, port)))
        except OSError as error:
            failure = error
            if error.errno not in MISSING_FAMILY:
                break
    if failure is not None and (not bound or failure.errno not in MISSING_FAMILY):
        for one in bound:
            one.close()
        raise ListenError(_why_not(config, failure)) from failure
    return bound


def url_of(config: ServeConfig, bound: list[socket.socket]) -> str:
    """The address to type into a browser on this machine."""
    host, port = bound[0].getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = "127.0.0.1" if bound[0].family == socket.AF_INET else "::1"
    elif config.host == "localhost":
        host = config.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of a host, each once."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(
            f"no address is known for the host {host!r}: give a name or an address of this machine"
        ) from error
    pairs = [(family, str(address[0])) for family, _, _, _, address in found]
    return list(dict.fromkeys(pair for pair in pairs if pair[0] in (socket.AF_INET, socket.AF_INET6)))


def _bound(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio sets no TCP_NODELAY
    try:
        if os.name == "posix":  # elsewhere it lets two servers have one port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)  # here, not later: two servers can be bound to one port, but only one can listen
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _why_not(config: ServeConfig, error: OSError) -> str:
    where = f"port {config.port} at {config.host or 'every address'}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another program: end that, or choose another with --port (0 for one that is free)"
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user: choose a port above 1023 with --port"
    if error.errno in MISSING_FAMILY:
        return f"{config.host} is not an address of this machine: give one of its own, or 127.0.0.1"
    return f"{where} cannot be used: {error.strerror}"
