"""The daemon's errors. Only `rpc/status.py` turns them into status codes."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from contextlib import contextmanager

SHOWN = 300
"""The most characters of an id that error messages show; well-formed ids are shorter."""


class Reason(enum.IntEnum):
    """The reason of an error, for programs. The numbers are those of the contract's `ErrorReason`."""

    INVALID_FIELD = 1
    RUN_NOT_FOUND = 2
    RUN_EXISTS = 3
    CONFIG_MISMATCH = 4
    RUN_FINISHED = 5
    STALE_HANDLE = 6
    STEP_AHEAD = 7
    STALE_STEP = 8
    MODEL_NOT_FOUND = 9
    MODEL_INVALID = 10
    QUEUE_FULL = 11
    DRAINING = 12
    STORE = 13
    MEMORY_FULL = 14
    NOT_OWNER = 15
    UNAUTHENTICATED = 16
    PERMISSION_DENIED = 17
    TENANT_LIMIT = 18
    NOTHING_TO_DO = 19
    DAMAGED = 20
    STORE_NEWER = 21
    OTHER_FEEDER = 22
    MODEL_EXISTS = 23
    RUN_BEGUN = 24
    NO_SEARCH = 25
    NO_TASK = 26


class AdvisorError(Exception):
    """A request failed.

    Attributes:
        reason: the reason, for programs.
        field: the invalid field of the request, or "".
        next_step: the step expected next, if the request's step is wrong.
        owner: the address of the replica to ask instead, if it is known, or "".
        ambiguous: whether the change may have been stored all the same: the error came during the commit.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        field: str = "",
        next_step: int | None = None,
        owner: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.next_step = next_step
        self.owner = owner
        self.ambiguous = False


class FencedError(AdvisorError):
    """Another replica has taken over shards that this one tried to write.

    Attributes:
        shards: the shards that were taken over.
    """

    def __init__(self, shards: Collection[int]) -> None:
        super().__init__(
            Reason.NOT_OWNER, f"another replica has taken over {len(shards)} shards of runs; connect again"
        )
        self.shards = frozenset(shards)


class DamagedError(AdvisorError):
    """A run cannot be read completely from the store: bytes have changed, or are missing."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.DAMAGED, message)


def invalid_field(field: str, problem: str) -> AdvisorError:
    """Return the error for a field that is missing, malformed or out of range."""
    return AdvisorError(Reason.INVALID_FIELD, f"{field}: {problem}", field=field)


def draining() -> AdvisorError:
    """Return the error for a call to a daemon that is shutting down."""
    return AdvisorError(Reason.DRAINING, "the daemon is shutting down; connect again when it is back")


def run_not_found(run_id: str) -> AdvisorError:
    """Return the error for an id that no run has."""
    return AdvisorError(
        Reason.RUN_NOT_FOUND, f"run_id: there is no run {run_id!r}; open it first", field="run_id"
    )


def run_begun(run_id: str, next_step: int) -> AdvisorError:
    """Return the error of a search for a run that has observations."""
    return AdvisorError(
        Reason.RUN_BEGUN,
        f"run_id: run {run_id!r} is at step {next_step}, and a search comes before the first step; search "
        "in a new run, or restart this one",
        field="run_id",
    )


def no_search(run_id: str) -> AdvisorError:
    """Return the error of a call that reads the search of a run without one."""
    return AdvisorError(Reason.NO_SEARCH, f"run_id: run {run_id!r} had no search", field="run_id")


def other_feeder(run_id: str) -> AdvisorError:
    """Return the error for a process that rejoins a run after another process has opened it."""
    return AdvisorError(
        Reason.OTHER_FEEDER,
        f"run_id: another process has opened run {run_id!r} since, is connected, and sends its observations; "
        "stop one of the two: give each an id of its own, or open the run again to take it over",
        field="run_id",
    )


def no_task(task: str) -> AdvisorError:
    """Return the error for a task of which nothing is remembered."""
    return AdvisorError(
        Reason.NO_TASK,
        f"task: nothing is remembered of {task[:SHOWN]!r}; `mlrs tasks list` names the tasks",
        field="task",
    )


def moved_elsewhere(run_id: str) -> AdvisorError:
    """Return the error for a call about a run that another replica has taken over."""
    return AdvisorError(
        Reason.NOT_OWNER, f"run_id: another replica has taken over {run_id!r}; call again", field="run_id"
    )


def record_lacking(run_id: str, step: int) -> DamagedError:
    """Return the error for a record that ends too early."""
    return DamagedError(f"the store lacks the record of run {run_id!r} from step {step} on")


def step_ahead(run_id: str, step: int, expected: int) -> AdvisorError:
    """Return the error for a step beyond the next one."""
    return AdvisorError(
        Reason.STEP_AHEAD,
        f"step: {step} skips ahead; run {run_id!r} expects step {expected} next: send every step "
        "once, counting from 0",
        field="step",
        next_step=expected,
    )


def finished_run(run_id: str) -> AdvisorError:
    """Return the error for an observation, or a resume, of a finished run."""
    return AdvisorError(
        Reason.RUN_FINISHED,
        f"run {run_id!r} is finished; use another run_id, or reopen it with resume_from",
        field="run_id",
    )


def stale_step(run_id: str, step: int, recorded: float, expected: int) -> AdvisorError:
    """Return the error for a step that was answered for another loss."""
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: {step} of run {run_id!r} was answered for the loss {recorded!r}; it expects step "
        f"{expected} next. To go back, open the run with resume_from={step}",
        field="step",
        next_step=expected,
    )


def other_extras(run_id: str, step: int, difference: str, expected: int) -> AdvisorError:
    """Return the error for a step that was answered with other signals, or another validation loss.

    `difference` says how they differ, as `extras.difference` does.
    """
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: {step} of run {run_id!r} was answered {difference}; it expects step {expected} next. To go "
        f"back, open the run with resume_from={step}",
        field="step",
        next_step=expected,
    )


def stale_handle() -> AdvisorError:
    """Return the error for a handle that no run has."""
    return AdvisorError(
        Reason.STALE_HANDLE,
        "run_handles: the handle is not of this daemon process, or its run was rewound, deleted, opened by "
        "another process, or left memory as nobody observed it; call OpenRun again",
        field="run_handles",
    )


@contextmanager
def about(run_id: str, *, among: int) -> Iterator[None]:
    """Add the run's id to errors of the block, if a call is about several runs.

    Args:
        run_id: the run's id, which may be malformed.
        among: the number of runs of the call.
    """
    try:
        yield
    except AdvisorError as error:
        shown = repr(run_id[:SHOWN])
        if among == 1 or shown in str(error):
            raise
        raise AdvisorError(
            error.reason,
            f"run {shown}: {error}",
            field=error.field,
            next_step=error.next_step,
            owner=error.owner,
        ) from error
