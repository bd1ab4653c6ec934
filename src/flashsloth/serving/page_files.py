"""The page's files, as they are served: `index.html` at the root, all others beside it, by their names.

They are read once, when the application is made, so nothing in a request ever becomes a path.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def add_page(app: FastAPI) -> None:
    """Let an application serve the page."""
    for file in sorted(PAGE.glob("*.*")):
        _add(app, "/" if file.name == INDEX else f"/{file.name}", file.read_bytes(), MEDIA_TYPES[file.suffix])


def _add(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    async def file() -> Response:
        return Response(content, media_type=media_type)

    app.add_api_route(path, file, methods=["GET", "HEAD"], include_in_schema=False)
