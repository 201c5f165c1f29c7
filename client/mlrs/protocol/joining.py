"""Procedures: unary calls, and how runs join a stream, at first and after each failure."""

from __future__ import annotations

from typing import Any, TypeVar

from mlrs.errors import ClosedError, MlrsError, RunFinishedError, RunNotFoundError
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_result import Opened
from mlrs.protocol.addresses import LONGEST_ATTEMPT_S
from mlrs.protocol.deadline import Backoff, Deadline
from mlrs.protocol.routing import Call, Pause, Procedure, Route, routed
from mlrs.protocol.session import DENIALS, PASSING, Session
from mlrs.values.types import RunConfig

T = TypeVar("T")


def called(session: Session, call: Call[T], timeout_s: float, home: str | None = None) -> Procedure[T]:
    """Make a call, first at the address `home`."""
    try:
        return (yield from routed(call, Route(session.addresses, Deadline(timeout_s), home)))
    except MlrsError:
        session.check_open()
        raise


def deleted(session: Session, run_id: str, timeout_s: float) -> Procedure[None]:
    """Delete a run. A run that is missing after an ambiguous attempt counts as deleted."""
    route = Route(session.addresses, Deadline(timeout_s))
    try:
        yield from routed(session.requests.delete_run(run_id), route)
    except RunNotFoundError:
        if not route.may_be_done:
            raise
    except MlrsError:
        session.check_open()
        raise


def completed(
    session: Session, ledger: Ledger[Any], config: RunConfig, *, is_new: bool = False
) -> Procedure[None]:
    """Add to a run's config what it lacks. If it `is_new`, the memory of its task may then decide."""
    call = session.requests.completing(ledger.start, config, session.feeder, is_new=is_new)
    (run,) = yield from called(session, call, session.timeout_s, session.home_of(ledger))
    ledger.config = run.info.config
    session.recalled(ledger)


def stored(session: Session, ledger: Ledger[Any], timeout_s: float) -> Procedure[bool]:
    """Ask how far the runs are stored, which makes the daemon store them; return whether all steps are."""
    deadline, steps = Deadline(timeout_s), []
    for run_id in ledger.run_ids:
        route = Route(session.addresses, deadline, session.home_of(ledger))
        run = yield from routed(session.requests.get_run(run_id), route)
        steps.append(run.durable_step)
    return ledger.stored(min(steps))


def ensure_joined(session: Session, ledger: Ledger[Any]) -> None:
    """Log the state of a run's outage, and begin to join the run again if it needs that."""
    session.log_outage(ledger)
    if ledger not in session.joining and session.needs_joining(ledger):
        session.joining.add(ledger)
        session.host.start(join(session, ledger))
    elif ledger not in session.joining:
        session.send_if_joined(ledger)


def join(session: Session, ledger: Ledger[Any]) -> Procedure[None]:
    """Have runs join a stream, for the first time or again: open them, and send what the daemon lacks.

    Repeats until it succeeds, is refused, or is not needed any more.
    """
    try:
        yield from _tried(session, ledger)
    except ClosedError:
        pass  # unsent observations stay in the ledger
    except RunFinishedError as error:
        ledger.is_finished = True
        ledger.turned_away(error)
    except MlrsError as error:
        session.setbacks[ledger] = error
        ledger.turned_away(error)
    finally:
        session.joining.discard(ledger)
        if ledger.standby.is_lost:
            session.lost.add(ledger)
        session.log_outage(ledger)
        ledger.changed.notify_all()


def _tried(session: Session, ledger: Ledger[Any]) -> Procedure[None]:
    """Try to join until that succeeds or is not needed any more."""
    patience_s = session.timeout_s if ledger.is_open else ledger.start.limit_s(ledger.first_step)
    while session.needs_joining(ledger):
        if ledger.is_open or ledger in session.setbacks:
            yield Pause(session.backoffs.setdefault(ledger, Backoff()).next_s())
        if not session.needs_joining(ledger):
            return
        if ledger.is_open and not session.addresses.several:
            patience_s = LONGEST_ATTEMPT_S
        try:
            yield from _joined(session, ledger, Deadline(patience_s))
        except (*PASSING, *DENIALS) as error:
            if not ledger.may_pass(error):
                raise
            session.setbacks[ledger] = error
            if not ledger.is_open:  # callers wait less long for an unreachable daemon than for a busy one
                ledger.changed.notify_all()
        patience_s = min(2 * patience_s, LONGEST_ATTEMPT_S)


def _joined(session: Session, ledger: Ledger[Any], deadline: Deadline) -> Procedure[None]:
    """Open runs at the replica that owns them, and let them join the stream there.

    A sweep may take several calls; the next attempt continues after those that succeeded.
    """
    start, feeder, first_step = ledger.start, session.feeder, ledger.first_step
    requests = session.requests
    address, runs = session.reopened.get(ledger, ("", []))
    route = Route(session.addresses, deadline, address or session.home_of(ledger))
    way = None if ledger.is_open else start.way(first_step)
    if ledger.standby.steps:  # it trained on its fallback, which the memory must not take for its own advice
        start.explore = None
    start.fallback = ledger.standby.untold
    while len(runs) < ledger.size:
        if way is None:
            call = requests.reopening(start, feeder, len(runs))
        else:
            call = requests.opening(start, way, feeder, len(runs))
        try:
            part = yield from routed(call, route)
        except MlrsError as error:
            raise start.explained(error, first_step) from error
        if route.address != address:  # handles are valid at one daemon only
            is_first = not runs
            address, runs = route.address, []
            session.reopened[ledger] = address, runs
            if not is_first:
                continue
        runs += part
    del session.reopened[ledger]
    ledger.standby.told(start.fallback)
    opened = Opened(tuple(runs))
    if way is None:
        ledger.rejoin(opened)
    else:
        if lacking := start.lacking(opened.config, opened.next_step):
            call = requests.completing(start, lacking, feeder, is_new=opened.is_new)
            opened = opened.completed(*(yield from routed(call, route)))
        ledger.open(opened)
        session.opened(ledger, opened.took_over, address)
    if session.needs_joining(ledger):
        session.join(ledger, address)
    session.setbacks.pop(ledger, None)
