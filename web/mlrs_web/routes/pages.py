"""The page and its files. One page has all views; its script shows the one that the address names."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parents[1] / "static"
PATHS = ("/", "/runs", "/run", "/compare", "/tasks", "/task", "/models", "/model", "/health", "/sign-in")
"""The addresses of views."""


async def page(_: Request) -> Response:
    """Return the page."""
    return FileResponse(STATIC / "index.html", media_type="text/html")


ROUTES: list[BaseRoute] = [
    *(Route(path, page) for path in PATHS),
    Mount("/static", StaticFiles(directory=STATIC)),
]
