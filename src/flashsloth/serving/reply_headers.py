"""What every reply carries: how browsers have to treat it.

In: the headers of a reply. Out: those, without control characters, and ours.
"""

from __future__ import annotations

from flashsloth.serving.request_headers import Headers, harmless

ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
"""Where a reply does not say otherwise."""
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Of the page: it runs what this server sends, and asks this server alone."""


def complete(headers: Headers, more: Headers, is_page: bool) -> Headers:
    """A reply's headers with those that all replies carry.

    Args:
        headers: the reply's own.
        more: what this request's reply carries beside them.
        is_page: whether it is one of the page's files.
    """
    own = {name.lower() for name, _ in headers}
    added = {**ALWAYS, b"content-security-policy": PAGE_POLICY} if is_page else ALWAYS
    return harmless([*headers, *more, *((name, value) for name, value in added.items() if name not in own)])
