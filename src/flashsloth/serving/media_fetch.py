"""A picture from another server, where whoever runs this one allows that server by name.

In: an http or https URL, and the hosts that are allowed, each `host` or `host:port`. Out: encoded bytes; or a
`PictureError` of one line.

A host is compared with the allowed ones as it stands, letter by letter: a number that means an address, a name in
another alphabet, a user's name before an @ are none of them, unless they are written so in the list. The name is
resolved once, and the connection goes to the address that came of it, so that a second answer of the name server
changes nothing. Redirects are not followed, no proxy is asked, and an address of the machine's own link (where clouds
keep their secrets), or of the machine itself under another name, is no other server.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, NamedTuple

from flashsloth.media.limits import MIB, PictureError, cause, shown

OPTION = "--allow-media-host"
MOST_BYTES = 20 * MIB
READ_BYTES = 64 << 10
MOST_URL_CHARACTERS = 8192
PORTS = {"http": 80, "https": 443}
HOST = r"(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
URL = re.compile(rf"(?P<scheme>https?)://{HOST}(?P<path>[/?][!-\[\]-~]*)?", re.IGNORECASE | re.ASCII)
"""Scheme, host, port and path, of printable ASCII alone; no user's name, no white space, no backslash.
What follows a # is the client's and never sent."""
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "flashsloth", "Connection": "close"}
LOOPBACK_NAME = "localhost"


class Address(NamedTuple):
    """Where a name leads: the family of the socket, and the address in digits."""

    family: int
    ip: str


class Location(NamedTuple):
    """A URL, taken apart.

    Attributes:
        scheme: "http" or "https".
        host: in small letters; an IPv6 address without its brackets.
        port: which the URL names, or the scheme's own.
        path: with its query.
        allowed: how the list of allowed hosts would name it.
    """

    scheme: str
    host: str
    port: int
    path: str
    allowed: str


def fetch(url: str, allowed: Collection[str], seconds: float) -> bytes:
    """What a URL holds.

    Args:
        url: as a stranger wrote it.
        allowed: hosts, in small letters, with a port where it is not the scheme's own.
        seconds: from here to the last byte.

    Raises:
        PictureError: if it is not fetched.
    """
    end = time.monotonic() + seconds
    place = locate(url, allowed)
    try:
        address = resolve(place.host, place.port)
        _check_address(url, place, address)
        with connect(address, place.port, _left(end)) as plain:
            plain.settimeout(_left(end))
            opened = tls_context().wrap_socket(plain, server_hostname=place.host) if place.scheme == "https" else plain
            with opened:
                return _get(url, place, opened, end)
    except TimeoutError as error:
        raise PictureError(f"{shown(url)}: no picture came within {seconds:g} s; send it as a data URL") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise PictureError(f"{shown(url)}: it cannot be fetched ({cause(error)}); send it as a data URL") from error


def is_host(name: str) -> bool:
    """Whether a name can be in the list of allowed hosts."""
    return re.fullmatch(HOST, name, re.IGNORECASE | re.ASCII) is not None


def locate(url: str, allowed: Collection[str]) -> Location:
    """A URL of an allowed host, taken apart.

    Raises:
        PictureError: for anything else.
    """
    bare = url.partition("#")[0]
    match = URL.fullmatch(bare) if len(url) <= MOST_URL_CHARACTERS else None
    port = 0 if match is None else int(match["port"] or PORTS[match["scheme"].lower()])
    if match is None or not 0 < port < 1 << 16:
        raise PictureError(
            f"{shown(url)} is no picture's address; expected a data URL, or http(s)://HOST/... of a host that {OPTION} "
            f"names"
        )
    scheme, host = match["scheme"].lower(), match["host"].lower()
    full = f"{host}:{port}"
    named = host if port == PORTS[scheme] else full
    if not {named, full} & set(allowed):
        raise PictureError(
            f"{shown(url)} is not fetched: the server was not started with {OPTION} {shown(named)[1:-1]}; send the "
            f"picture as a data URL"
        )
    path = match["path"] or "/"
    return Location(scheme, host.strip("[]"), port, path if path.startswith("/") else "/" + path, named)


def resolve(host: str, port: int) -> Address:
    """The first address of a name."""
    family, _, _, _, (ip, *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return Address(int(family), str(ip))


def connect(address: Address, port: int, seconds: float) -> socket.socket:
    """A connection to that very address."""
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect((address.ip, port))
    except BaseException:
        connection.close()
        raise
    return connection


def tls_context() -> ssl.SSLContext:
    """Certificates are verified against the system's, and the server's name with them."""
    return ssl.create_default_context()


def _check_address(url: str, place: Location, address: Address) -> None:
    """Refuse addresses that an allowed name has no business with."""
    ip = ipaddress.ip_address(address.ip.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    own = place.host == LOOPBACK_NAME or place.host == address.ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or (ip.is_loopback and not own):
        raise PictureError(f"{shown(url)} is not fetched: its host's address is {ip}, which is no other server's")


def _get(url: str, place: Location, opened: socket.socket, end: float) -> bytes:
    """The body of the reply."""
    connection = http.client.HTTPConnection(place.host, place.port)
    connection.sock = _Timed(opened, end)
    connection.request("GET", place.path, headers={"Host": place.allowed, **HEADERS})
    with connection.getresponse() as response:
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            raise PictureError(
                f"{shown(url)}: a redirect (status {response.status}), which is not followed; give the address that it "
                f"leads to"
            )
        if response.status != HTTPStatus.OK:
            raise PictureError(f"{shown(url)}: status {response.status}; expected {HTTPStatus.OK} and a picture")
        data = bytearray()
        _check_length(url, response.length or 0)
        while chunk := response.read(READ_BYTES):
            data += chunk
            _check_length(url, len(data))
        if response.length:
            raise PictureError(f"{shown(url)}: the reply ended {response.length:,} bytes early; ask again")
        return bytes(data)


def _check_length(url: str, count: int) -> None:
    if count > MOST_BYTES:
        raise PictureError(f"{shown(url)}: more than {MOST_BYTES:,} bytes; shrink the picture")


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Timed:
    """A socket of which all reads and writes together have until `end`: what `http.client` needs of one."""

    def __init__(self, opened: socket.socket, end: float) -> None:
        self._socket, self._end = opened, end

    def sendall(self, data: Any) -> None:
        self._socket.settimeout(_left(self._end))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._socket, self._end), READ_BYTES)

    def close(self) -> None:
        """The socket is closed by whoever opened it."""


class _Reader(io.RawIOBase):
    """What comes through a socket until `end`."""

    def __init__(self, opened: socket.socket, end: float) -> None:
        self._socket, self._end = opened, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._end))
        return self._socket.recv_into(buffer)
