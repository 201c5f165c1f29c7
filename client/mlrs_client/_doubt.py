"""Calls that change something once, tried again: what came of them where the first answer was lost.

A call that may have been carried out is made again at another address. What it says there, that the run
exists already or is gone, is then no failure if the first try did it. For deleting that is certain enough:
the run is gone, whoever did it. A run that was to be new is taken for ours only if nothing speaks against it:
it is as it would be, has no step yet, and was created while we called.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace

from mlrs_client._calls import Call, OpenedRun, asked_config, delete_run, get_run, resuming
from mlrs_client._exceptions import MlrsError, RunExistsError, RunNotFoundError
from mlrs_client._routing import Procedure, Route, routed
from mlrs_client._types import RunConfig, RunInfo

CLOCKS_DIFFER_S = 1.0
"""How far the daemon's clock may be from this machine's."""
_RESOLVED = {"model", "schedule"}
"""What the daemon completes; opening the run again has it compared."""


def deleted(run_id: str, route: Route) -> Procedure[None]:
    """Delete a run.

    Raises:
        RunNotFoundError: there was none, before the first try that may have deleted it.
        MlrsError: it failed.
    """
    try:
        yield from routed(delete_run(run_id), route)
    except RunNotFoundError:
        if not route.in_doubt:
            raise


def opened_once(call: Call[tuple[OpenedRun, ...]], route: Route) -> Procedure[tuple[OpenedRun, ...]]:
    """Open runs.

    Raises:
        RunExistsError: they were to be new and are not, as far as can be known.
        MlrsError: it failed.
    """
    began = time.time()
    try:
        return (yield from routed(call, route))
    except RunExistsError as error:
        if not route.in_doubt:
            raise
        doubt = RunExistsError(
            f"{error}. It may have been created by a try of this call whose answer was lost: if it is yours,"
            " open it without mode='create'",
            reason=error.reason,
            field=error.field,
        )
        try:
            return (yield from _if_ours(call, route, began, doubt))
        except MlrsError:
            raise doubt from error


def _if_ours(
    call: Call[tuple[OpenedRun, ...]], route: Route, began: float, doubt: RunExistsError
) -> Procedure[tuple[OpenedRun, ...]]:
    """Open a run that exists, if it is the one that the call was to create."""
    asked = asked_config(call)
    if asked is None:  # of a sweep: a thousand runs, any of which may be another's
        raise doubt
    run_id, config = asked
    if not _is_ours((yield from routed(get_run(run_id), route)), config, began):
        raise doubt
    (run,) = yield from routed(resuming(call), route)
    if run.info.next_step:
        raise doubt
    return (replace(run, created=True),)


def _is_ours(info: RunInfo, asked: RunConfig, began: float) -> bool:
    is_new = began - CLOCKS_DIFFER_S <= info.create_time.timestamp() <= time.time() + CLOCKS_DIFFER_S
    names = [field.name for field in fields(RunConfig) if field.name not in _RESOLVED]
    is_like = all(getattr(info.config, name) == getattr(asked, name) for name in names)
    return is_new and is_like and not info.next_step
