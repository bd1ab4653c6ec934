"""Keys: who may ask.

In: the keys that a server was given, and a request's headers. Out: whether one of them is named.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from flashsloth.serving.request_headers import Headers, values

BEARER = b"bearer "


class ApiKeys:
    """The keys of a server; any of them opens it, and none is needed where there are none.

    Args:
        keys: as a client sends them.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def open_to(self, headers: Headers) -> bool:
        """Whether a request names a key, in `Authorization: Bearer ...`.

        Takes as long for a wrong key as for a right one: what is compared are digests, all of them and whole.
        """
        if not self._digests:
            return True
        given = values(headers, b"authorization")
        if len(given) != 1 or given[0][: len(BEARER)].lower() != BEARER:
            return False
        digest = sha256(given[0][len(BEARER) :].strip()).digest()
        return sum(hmac.compare_digest(digest, one) for one in self._digests) > 0
