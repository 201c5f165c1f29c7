"""What can go wrong for a user of the client; every message says what to do.

MlrsError
├── InvalidArgumentError    (ValueError) an argument is wrong; `field` names it
├── UsageError              (RuntimeError) a call that is not allowed at this point
│   ├── ClosedError         the advisor or the run was closed
│   └── ForkedError         the advisor belongs to the parent process
├── StepError               a step is not the expected one; `next_step` is
│   ├── StepAheadError      it is beyond the next one
│   ├── StaleStepError      it was answered for another loss
│   └── RecordGapError      steps are missing between the daemon's record and the client's
├── RunNotFoundError        no run has this id
├── RunExistsError          the id is taken
├── RunFinishedError        the run takes no more observations
├── RunTakenError           another process has opened the run since and now sends its observations
├── RunBegunError           the run has observations, and a search comes before the first step
├── NoSearchError           the run had no search
├── TaskNotFoundError       nothing is remembered of the task
├── ConfigMismatchError     the run exists with another config
├── ModelNotFoundError      no model has this name, alias or digest
├── ModelExistsError        the name is another model's
├── ModelInvalidError       the model's file cannot be read as one
├── RecordDamagedError      the daemon's record of the run is damaged; the client does not retry
├── StoreNewerError         a newer daemon wrote the store, which this one cannot read; no retry
├── UnavailableError        (ConnectionError) the daemon is unreachable, or stopping
├── UnauthenticatedError    (PermissionError) the daemon wants a token, or another one
├── PermissionDeniedError   (PermissionError) the token's role does not cover the call
├── DeadlineExceededError   (TimeoutError) no answer within the deadline
├── LimitError              something is larger than the daemon takes
│   ├── QueueFullError      too many observations are waiting in the daemon
│   ├── MemoryFullError     too many runs, or different models and schedules, are in memory
│   ├── TenantLimitError    the tenant is at one of its limits
│   └── MessageTooLargeError  a message is larger than one side takes
├── NotBuiltError           (NotImplementedError) this daemon does not implement the call
└── DaemonError             any other failure of the daemon
"""

from __future__ import annotations

__all__ = [
    "ClosedError",
    "ConfigMismatchError",
    "DaemonError",
    "DeadlineExceededError",
    "ForkedError",
    "InvalidArgumentError",
    "LimitError",
    "MemoryFullError",
    "MessageTooLargeError",
    "MlrsError",
    "ModelExistsError",
    "ModelInvalidError",
    "ModelNotFoundError",
    "NoSearchError",
    "NotBuiltError",
    "PermissionDeniedError",
    "QueueFullError",
    "RecordDamagedError",
    "RecordGapError",
    "RunBegunError",
    "RunExistsError",
    "RunFinishedError",
    "RunNotFoundError",
    "RunTakenError",
    "StaleStepError",
    "StepAheadError",
    "StepError",
    "StoreNewerError",
    "TaskNotFoundError",
    "TenantLimitError",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageError",
]


class MlrsError(Exception):
    """Root of the client's exceptions.

    Attributes:
        reason: what went wrong, for programs: a name of the contract's `ErrorReason` without its
            prefix, such as `STALE_STEP`; `None` where the daemon gave none.
        field: the argument or request field at fault, where there is one.
    """

    def __init__(self, message: str, *, reason: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class InvalidArgumentError(MlrsError, ValueError):
    """An argument is of a wrong type or out of range; `field` names it."""


class UsageError(MlrsError, RuntimeError):
    """A call that is not allowed at this point."""


class ClosedError(UsageError):
    """The advisor or the run was closed."""


class ForkedError(UsageError):
    """The advisor was made by the parent of this process."""


class StepError(MlrsError):
    """A step is not the expected one.

    Attributes:
        next_step: the step that is expected next, where it is known.
    """

    def __init__(
        self,
        message: str,
        *,
        next_step: int | None = None,
        reason: str | None = None,
        field: str | None = "step",
    ) -> None:
        super().__init__(message, reason=reason, field=field)
        self.next_step = next_step


class StepAheadError(StepError):
    """The step is beyond the next one."""


class StaleStepError(StepError):
    """The step was answered for another loss."""


class RecordGapError(StepError):
    """Steps are missing between the daemon's record of the run and the observations that the client keeps."""


class RunNotFoundError(MlrsError):
    """No run has this id."""


class RunExistsError(MlrsError):
    """The id is taken."""


class RunFinishedError(MlrsError):
    """The run is finished and takes no more observations."""


class RunTakenError(MlrsError):
    """Another process has opened the run since and now sends its observations."""


class RunBegunError(MlrsError):
    """The run has observations, and a search comes before the first step."""


class NoSearchError(MlrsError):
    """The run had no search."""


class TaskNotFoundError(MlrsError):
    """Nothing is remembered of the task."""


class ConfigMismatchError(MlrsError):
    """The run exists with another config."""


class ModelNotFoundError(MlrsError):
    """No model has this name, alias or digest."""


class ModelExistsError(MlrsError):
    """The name is another model's."""


class ModelInvalidError(MlrsError):
    """The model's file cannot be read as one."""


class RecordDamagedError(MlrsError):
    """The run's record in the daemon's store is damaged: restore a backup there, or delete the run."""


class StoreNewerError(MlrsError):
    """A newer version of the daemon wrote its store; upgrade the daemon."""


class UnavailableError(MlrsError, ConnectionError):
    """The daemon is unreachable, or stopping."""


class NotOwnerError(UnavailableError):
    """Another replica owns the run. Calls are made again there; no user sees this one.

    Attributes:
        owner: the other replica's address; `None`: not known.
    """

    def __init__(
        self, message: str, *, owner: str | None = None, reason: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, reason=reason, field=field)
        self.owner = owner


class UnauthenticatedError(MlrsError, PermissionError):
    """The daemon wants a token, or another one than it got."""


class PermissionDeniedError(MlrsError, PermissionError):
    """The token's role does not cover the call."""


class DeadlineExceededError(MlrsError, TimeoutError):
    """There was no answer within the deadline."""


class LimitError(MlrsError):
    """Something is larger than the daemon takes."""


class QueueFullError(LimitError):
    """The daemon has as many observations waiting as it takes."""


class MemoryFullError(LimitError):
    """The daemon has as many runs, or different models and schedules, in memory as fit."""


class TenantLimitError(LimitError):
    """The tenant is at one of its limits; the message names it."""


class MessageTooLargeError(LimitError):
    """A message is larger than one side takes."""


class NotBuiltError(MlrsError, NotImplementedError):
    """The contract has this call, and the daemon does not implement it."""


class DaemonError(MlrsError):
    """Any other failure of the daemon."""
