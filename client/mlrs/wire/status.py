"""Conversion of gRPC statuses to exceptions, which no other module does.

A failure of the daemon names its reason (`mlrs-reason`, an `ErrorReason`); a failure of the transport has
only a status code. The table of reasons is in `mlrs/values/reasons.py`, that of codes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc

from mlrs.errors import (
    DaemonError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitError,
    MessageTooLargeError,
    MlrsError,
    NotBuiltError,
    NotOwnerError,
    PermissionDeniedError,
    RecordDamagedError,
    StepError,
    UnauthenticatedError,
    UnavailableError,
)
from mlrs.values.reasons import NEVER_SENT, REASON_PREFIX, error_class, is_known

REASON_KEY, FIELD_KEY, OWNER_KEY, NEXT_STEP_KEY = "mlrs-reason", "mlrs-field", "mlrs-owner", "mlrs-next-step"
"""The trailing metadata of a failure."""
BROKEN_UNDER_A_WRITE = "Internal error from Core"
"""The message of gRPC's asyncio client when a connection breaks during a write."""

_BY_CODE: dict[grpc.StatusCode, type[MlrsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,
    grpc.StatusCode.UNIMPLEMENTED: NotBuiltError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.DATA_LOSS: RecordDamagedError,
}
_WAY_OUT: dict[type[MlrsError], str] = {
    UnavailableError: "is `mlrs serve` running there?",
    DeadlineExceededError: "try again, or raise `timeout_s`",
    MessageTooLargeError: "send fewer entries or shorter texts in a message, or raise the daemon's limit"
    " (`mlrs serve --max-message-bytes`)",
    NotBuiltError: "use a daemon of a newer version",
    UnauthenticatedError: "here: pass a good token, connect(..., token=...) or MLRS_TOKEN in the environment,"
    " and connect again",
    PermissionDeniedError: "use a token whose role covers the call (`mlrs tokens create`)",
}


@contextmanager
def map_rpc_errors(target: str) -> Iterator[None]:
    """Convert the gRPC errors of the block to subclasses of `MlrsError`.

    Args:
        target: the daemon's address, for the message.
    """
    try:
        yield
    except grpc.RpcError as error:
        trailers = dict(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))
        raise _from_status(
            target,
            error.code(),
            error.details() or "",
            reason=_text(trailers.get(REASON_KEY)).removeprefix(REASON_PREFIX),
            field=_text(trailers.get(FIELD_KEY)),
            owner=_text(trailers.get(OWNER_KEY)),
            next_step=_text(trailers.get(NEXT_STEP_KEY)),
        ) from error


def _from_status(
    target: str, code: grpc.StatusCode, details: str, *, reason: str, field: str, owner: str, next_step: str
) -> MlrsError:
    if reason == "NOT_OWNER":
        return NotOwnerError(details, owner=owner or None, reason=reason, field=field or None)
    if is_known(reason):
        kind = error_class(reason)
        if kind is UnauthenticatedError:  # the daemon's message does not know this client's options
            details = f"{details}; {_WAY_OUT[kind]}"
        if issubclass(kind, StepError):
            expected = int(next_step) if next_step.isdecimal() else None
            return kind(details, next_step=expected, reason=reason, field=field or None)
        return kind(details, reason=reason, field=field or None)
    kind = _BY_CODE.get(code, DaemonError)
    if details.startswith(NEVER_SENT):  # gRPC repeats the address several times
        details = f"{details.split(';')[0].split(' for ')[0]}: {details.rsplit(': ', 1)[-1]}"
    if code is grpc.StatusCode.INTERNAL and details == BROKEN_UNDER_A_WRITE:
        kind = UnavailableError
    if kind is LimitError and "message larger than max" in details:
        kind = MessageTooLargeError
    message = f"daemon at {target}: {details or code.name}"
    if kind in _WAY_OUT:
        message += f"; {_WAY_OUT[kind]}"
    return kind(message, reason=reason or None, field=field or None)


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
