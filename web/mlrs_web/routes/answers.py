"""Answers as JSON. The one table from exceptions to answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from mlrs import errors
from mlrs_web.daemons.access import NoTokensError, SignInError
from mlrs_web.live.hub import TooManyStreamsError
from mlrs_web.security.headers import API
from mlrs_web.views.plain import encoded

KINDS: list[tuple[type[Exception], int, str]] = [
    (errors.InvalidArgumentError, 400, "invalid"),
    (errors.UnauthenticatedError, 401, "unauthenticated"),
    (SignInError, 401, "unauthenticated"),
    (NoTokensError, 409, "invalid"),
    (errors.PermissionDeniedError, 403, "forbidden"),
    (errors.RunNotFoundError, 404, "not_found"),
    (errors.ModelNotFoundError, 404, "not_found"),
    (errors.TaskNotFoundError, 404, "not_found"),
    (errors.NotBuiltError, 501, "unimplemented"),
    (errors.UnavailableError, 503, "unavailable"),
    (errors.DeadlineExceededError, 503, "unavailable"),
    (errors.ClosedError, 503, "unavailable"),
    (errors.LimitError, 503, "unavailable"),
    (TooManyStreamsError, 503, "unavailable"),
    (Exception, 500, "internal"),
]
"""The status and the code of each kind of failure."""
CODES = {400: "invalid", 403: "forbidden", 404: "not_found", 405: "invalid", 413: "invalid"}


def json(value: object, status: int = 200) -> Response:
    """Return an answer with a plain value."""
    return raw(encoded(value), status)


def raw(body: bytes, status: int = 200) -> Response:
    """Return an answer with encoded JSON."""
    return Response(body, status, media_type="application/json")


def failure(error: Exception) -> Response:
    """Return the answer for a failure."""
    status, code = next((status, code) for kind, status, code in KINDS if isinstance(error, kind))
    message = str(error)
    if code == "internal" and not isinstance(error, errors.MlrsError):
        message = "a defect of the dashboard; its log has more"
    field = error.field if isinstance(error, errors.MlrsError) else None
    return json({"error": {"code": code, "message": message, "field": field}}, status)


async def on_failure(_: Request, error: Exception) -> Response:
    """Answer a request that failed."""
    return failure(error)


async def on_http(request: Request, error: Any) -> Response:
    """Answer a request for what does not exist (`HTTPException`): as JSON in the API, else as text."""
    if not request.url.path.startswith(API):
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
    code = CODES.get(error.status_code, "internal")
    body = encoded({"error": {"code": code, "message": error.detail, "field": None}})
    return Response(body, error.status_code, error.headers, media_type="application/json")


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    errors.MlrsError: on_failure,
    SignInError: on_failure,
    NoTokensError: on_failure,
    TooManyStreamsError: on_failure,
    HTTPException: on_http,
    Exception: on_failure,  # a defect, which uvicorn logs
}
"""Who answers which exceptions."""
