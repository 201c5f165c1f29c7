"""Whether a request comes from a page of the dashboard itself, or from a page of somebody else.

Any page that is open in a browser can send requests to 127.0.0.1. It cannot read the answers, and would still
make the dashboard work for it, and take its streams.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlrs_web.security.headers import API

OTHERS = frozenset({"cross-site", "same-site"})
"""What browsers say of requests that pages of others send; `same-site`: of another port of this machine."""


def is_own(request: Request) -> bool:
    """Return whether a request has the header of our pages, and the origin that it is sent to.

    Browsers let no page of another origin set the header without asking, which the dashboard never allows.
    """
    return request.headers.get("x-mlrs") == "1" and _is_own_origin(request)


def is_others(connection: HTTPConnection) -> bool:
    """Return whether a page of somebody else sends a request, as far as its browser says."""
    if connection.headers.get("sec-fetch-site", "").lower() in OTHERS:
        return True
    return bool(connection.headers.get("origin")) and not _is_own_origin(connection)


def _is_own_origin(connection: HTTPConnection) -> bool:
    origin, host = connection.headers.get("origin", ""), connection.headers.get("host", "")
    return origin.partition("://")[2].lower() == host.lower() != ""


class OwnPages:
    """Refuses requests to the API that pages of others send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to a request of another page."""
        if scope["type"] == "http" and scope["path"].startswith(API) and is_others(HTTPConnection(scope)):
            message = "only pages of this dashboard may ask in a browser"
            error = {"code": "forbidden", "message": message, "field": None}
            await JSONResponse({"error": error}, status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)
