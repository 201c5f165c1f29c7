"""From gRPC statuses and entry errors to exceptions: the only place that knows both.

A failure of the daemon names its reason (`mlrs-reason`, an `ErrorReason`); a failure of the
transport has only a status code. One table each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import grpc

from mlrs_client._exceptions import (
    ConfigMismatchError,
    DaemonError,
    DeadlineExceededError,
    InvalidArgumentError,
    LimitError,
    MemoryFullError,
    MessageTooLargeError,
    MlrsError,
    ModelExistsError,
    ModelInvalidError,
    ModelNotFoundError,
    NotBuiltError,
    NotOwnerError,
    PermissionDeniedError,
    QueueFullError,
    RecordDamagedError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    RunTakenError,
    StaleStepError,
    StepAheadError,
    StepError,
    StoreNewerError,
    TenantLimitError,
    UnauthenticatedError,
    UnavailableError,
)
from mlrs_proto.v1 import advisor_pb2 as pb

REASON_KEY, FIELD_KEY, OWNER_KEY = "mlrs-reason", "mlrs-field", "mlrs-owner"
"""The trailing metadata of a failure."""
_REASON_PREFIX = "ERROR_REASON_"
BROKEN_UNDER_A_WRITE = "Internal error from Core"
"""What gRPC's asyncio stack says, on this side, where a connection breaks while it is written to."""

_BY_REASON: dict[str, type[MlrsError]] = {
    "INVALID_FIELD": InvalidArgumentError,
    "RUN_NOT_FOUND": RunNotFoundError,
    "RUN_EXISTS": RunExistsError,
    "CONFIG_MISMATCH": ConfigMismatchError,
    "RUN_FINISHED": RunFinishedError,
    "STALE_HANDLE": UnavailableError,
    "STEP_AHEAD": StepAheadError,
    "STALE_STEP": StaleStepError,
    "MODEL_NOT_FOUND": ModelNotFoundError,
    "MODEL_INVALID": ModelInvalidError,
    "QUEUE_FULL": QueueFullError,
    "MEMORY_FULL": MemoryFullError,
    "DRAINING": UnavailableError,
    "NOT_BUILT": NotBuiltError,
    "STORE": DaemonError,
    "NOT_OWNER": NotOwnerError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "TENANT_LIMIT": TenantLimitError,
    "OTHER_FEEDER": RunTakenError,
    "DAMAGED": RecordDamagedError,
    "STORE_NEWER": StoreNewerError,
    "MODEL_EXISTS": ModelExistsError,
}
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


_NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed")
"""What gRPC says where a call did not so much as leave."""


def may_be_done(error: MlrsError) -> bool:
    """Return whether a call that failed so may have been carried out all the same, and its answer lost."""
    if not isinstance(error, (UnavailableError, DeadlineExceededError)) or error.reason is not None:
        return False
    return not any(words in str(error) for words in _NEVER_SENT)


@contextmanager
def map_rpc_errors(target: str) -> Iterator[None]:
    """Turn the gRPC errors of the block into exceptions of this package.

    Args:
        target: the daemon's address, for the message.

    Raises:
        MlrsError: the call failed; see `_exceptions`.
    """
    try:
        yield
    except grpc.RpcError as error:
        trailers = dict(cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()))
        raise _from_status(
            target,
            error.code(),
            error.details() or "",
            reason=_text(trailers.get(REASON_KEY)).removeprefix(_REASON_PREFIX),
            field=_text(trailers.get(FIELD_KEY)),
            owner=_text(trailers.get(OWNER_KEY)),
        ) from error


def from_entry_error(entry: pb.EntryError, run_id: str) -> MlrsError:
    """Return the exception for an entry of a stream that could not be answered."""
    reason = reason_name(entry.reason)
    kind = _BY_REASON.get(reason, DaemonError)
    message = f"run {run_id!r}: {entry.message or reason}"
    if issubclass(kind, StepError):
        expected = entry.expected_step if entry.HasField("expected_step") else None
        return kind(message, expected_step=expected, reason=reason)
    return kind(message, reason=reason)


def reason_name(reason: pb.ErrorReason.ValueType) -> str:
    """Return a reason's name without its prefix; a newer daemon's unknown one as its number."""
    if reason not in pb.ErrorReason.values():
        return str(reason)
    return pb.ErrorReason.Name(reason).removeprefix(_REASON_PREFIX)


def _from_status(
    target: str, code: grpc.StatusCode, details: str, *, reason: str, field: str, owner: str
) -> MlrsError:
    if reason == "NOT_OWNER":
        return NotOwnerError(details, owner=owner or None, reason=reason, field=field or None)
    if reason in _BY_REASON:
        kind = _BY_REASON[reason]
        if kind is UnauthenticatedError:  # what the daemon says is about the wire, not this client
            details = f"{details}; {_WAY_OUT[kind]}"
        return kind(details, reason=reason, field=field or None)
    kind = _BY_CODE.get(code, DaemonError)
    if details.startswith(_NEVER_SENT):  # gRPC names the address again, some times over
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
