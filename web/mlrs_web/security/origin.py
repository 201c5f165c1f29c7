"""Whether a request that signs in or out comes from a page of the dashboard itself."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request


def is_own(request: Request) -> bool:
    """Return whether a request has the header of our pages, and the origin that it is sent to.

    Browsers let no page of another origin set the header without asking, which the dashboard never allows.
    """
    origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
    return request.headers.get("x-mlrs") == "1" and urlsplit(origin).netloc.lower() == host.lower() != ""
