"""Sign-in with a token, and which daemon the dashboard shows."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlrs.errors import InvalidArgumentError, MlrsError, NotBuiltError, UnauthenticatedError
from mlrs_web.daemons.access import Access, SignInError
from mlrs_web.routes import answers
from mlrs_web.routes.asking import access_of, hub_of
from mlrs_web.security.origin import is_own
from mlrs_web.security.sessions import cookie_of, session_of
from mlrs_web.views import status

MOST_BODY = 8192
"""The largest body that is read, in bytes."""


async def show(request: Request) -> Response:
    """Say whether the browser is signed in, which daemon is shown, and what the dashboard keeps at most."""
    access = access_of(request)
    is_signed_in = access.sessions.token(session_of(request)) is not None
    is_refused, daemon = await _daemon(access, request)
    return answers.json(
        {
            "signed_in": is_signed_in or access.settings.has_own_access,
            "tokens_required": is_refused or is_signed_in or access.settings.has_own_access,
            "daemon": daemon,
            "demo": access.settings.demo,
            "dashboard": _dashboard(access, request),
        }
    )


async def _daemon(access: Access, request: Request) -> tuple[bool, dict[str, Any] | None]:
    """Return whether the daemon refuses the browser, and which daemon it is, as far as it says."""
    try:
        daemon = access.of(session_of(request))
    except SignInError:
        return True, None
    try:
        return False, status.daemon(await daemon.advisor.daemon(), access.settings.address)
    except UnauthenticatedError:
        access.refused(daemon)
        return True, None
    except NotBuiltError:  # an older daemon, which does not say
        return False, {"address": access.settings.address, "version": None, "start_time": None}
    except MlrsError:
        return False, None


def _dashboard(access: Access, request: Request) -> dict[str, Any]:
    hub, bounds = hub_of(request), access.settings.bounds
    return {
        "version": version("mlrs"),
        "memory_bytes": access.cache.size_bytes,
        "memory_limit_bytes": access.cache.most_bytes,
        "resident_bytes": _resident_bytes(),
        "streams": hub.streams,
        "streams_limit": hub.most,
        "sessions": len(access.sessions),
        "sessions_limit": bounds.sessions,
    }


def _resident_bytes() -> int | None:
    """Return the memory of this process; `None` where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


async def sign_in(request: Request) -> Response:
    """Exchange a token that the daemon accepts for a cookie."""
    _check_own(request)
    id_ = await access_of(request).admit(await _token(request))
    answer = Response(status_code=204)
    is_encrypted = access_of(request).settings.tls_cert is not None
    answer.set_cookie(
        cookie_of(request), id_, path="/", httponly=True, samesite="strict", secure=is_encrypted
    )
    return answer


async def sign_out(request: Request) -> Response:
    """Forget the token of the browser."""
    _check_own(request)
    access_of(request).sessions.remove(session_of(request))
    answer = Response(status_code=204)
    answer.delete_cookie(cookie_of(request), path="/", httponly=True, samesite="strict")
    return answer


def _check_own(request: Request) -> None:
    if not is_own(request):
        raise HTTPException(403, "only pages of this dashboard may do this: send X-MLRS: 1 and their Origin")


async def _token(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise HTTPException(413, f"the body is larger than {MOST_BODY} bytes")
    try:
        given = json.loads(body)
    except ValueError:  # also where it is not UTF-8
        given = None
    token = given.get("token") if isinstance(given, dict) else None
    if not isinstance(token, str) or not token:
        raise InvalidArgumentError('the body must be JSON: {"token": "..."}', field="token")
    return token


ROUTES = [
    Route("/api/session", show, methods=["GET"]),
    Route("/api/session", sign_in, methods=["POST"]),
    Route("/api/session", sign_out, methods=["DELETE"]),
]
