"""The contract's reasons for failures, by name, and their exceptions."""

from __future__ import annotations

from mlrs.errors import (
    ConfigMismatchError,
    DaemonError,
    DeadlineExceededError,
    InvalidArgumentError,
    MemoryFullError,
    MlrsError,
    ModelExistsError,
    ModelInvalidError,
    ModelNotFoundError,
    NoSearchError,
    NotOwnerError,
    PermissionDeniedError,
    QueueFullError,
    RecordDamagedError,
    RunBegunError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    RunTakenError,
    StaleStepError,
    StepAheadError,
    StoreNewerError,
    TaskNotFoundError,
    TenantLimitError,
    UnauthenticatedError,
    UnavailableError,
)

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
    "STORE": DaemonError,
    "NOT_OWNER": NotOwnerError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "TENANT_LIMIT": TenantLimitError,
    "OTHER_FEEDER": RunTakenError,
    "DAMAGED": RecordDamagedError,
    "STORE_NEWER": StoreNewerError,
    "MODEL_EXISTS": ModelExistsError,
    "RUN_BEGUN": RunBegunError,
    "NO_SEARCH": NoSearchError,
    "NO_TASK": TaskNotFoundError,
}
PASSING_REASONS = frozenset(
    {"STALE_HANDLE", "QUEUE_FULL", "STORE", "DRAINING", "NOT_OWNER", "MEMORY_FULL", "TENANT_LIMIT"}
)
"""Reasons of temporary refusals in a stream: the entry may be accepted when it is sent again."""
REASON_PREFIX = "ERROR_REASON_"
"""The contract's prefix of each name, which messages do not show."""
NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed")
"""gRPC's messages for calls that were never sent."""


def is_known(reason: str) -> bool:
    """Return whether this version knows a reason."""
    return reason in _BY_REASON


def error_class(reason: str) -> type[MlrsError]:
    """Return the exception of a reason; one that this version does not know is a `DaemonError`."""
    return _BY_REASON.get(reason, DaemonError)


def may_be_done(error: MlrsError) -> bool:
    """Return whether a failed call is ambiguous: the daemon may have carried it out."""
    if not isinstance(error, (UnavailableError, DeadlineExceededError)) or error.reason is not None:
        return False
    return not any(words in str(error) for words in NEVER_SENT)
