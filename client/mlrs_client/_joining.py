"""Procedures that bring runs onto a stream: when they are opened, and again whenever they fell off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from mlrs_client import _doubt
from mlrs_client._addresses import LONGEST_ATTEMPT_S
from mlrs_client._calls import Call, Opened, OpenedRun, open_run, reopening
from mlrs_client._deadline import Backoff, Deadline
from mlrs_client._exceptions import MlrsError, RunFinishedError
from mlrs_client._ledger import Ledger
from mlrs_client._routing import Pause, Procedure, Route, routed
from mlrs_client._session import DENIALS, PASSING, Session
from mlrs_client._types import RunConfig

L = TypeVar("L", bound=Ledger[Any])
T = TypeVar("T")


def called(session: Session, call: Call[T], timeout_s: float, home: str | None = None) -> Procedure[T]:
    """Make a call; `home` is where to try first.

    Raises:
        MlrsError: it failed.
    """
    try:
        return (yield from routed(call, Route(session.addresses, Deadline(timeout_s), home)))
    except MlrsError:
        session.check_open()
        raise


def deleted(session: Session, run_id: str, timeout_s: float) -> Procedure[None]:
    """Delete a run.

    Raises:
        MlrsError: it failed.
    """
    try:
        yield from _doubt.deleted(run_id, Route(session.addresses, Deadline(timeout_s)))
    except MlrsError:
        session.check_open()
        raise


def opened(
    session: Session,
    opening: Iterable[Call[tuple[OpenedRun, ...]]],
    timeout_s: float,
    ledger_of: Callable[[Opened], L],
) -> Procedure[L]:
    """Open runs, in one call or several, and let them take part in the stream.

    Args:
        session: the advisor's.
        opening: the calls.
        timeout_s: the deadline of each, in seconds.
        ledger_of: makes their ledger.

    Raises:
        MlrsError: a call failed. Runs opened by calls before it stay open.
    """
    runs: tuple[OpenedRun, ...] = ()
    places: list[str] = []
    for call in opening:
        route = Route(session.addresses, Deadline(timeout_s), places[-1] if places else None)
        runs += yield from _doubt.opened_once(call, route)
        places.append(route.address)
    session.check_open()
    ledger = ledger_of(Opened(runs))
    if len(set(places)) == 1:  # otherwise their handles are of different daemons: they join again, at one
        session.join(ledger, places[0])
    return ledger


def completed(session: Session, ledger: Ledger[Any], config: RunConfig) -> Procedure[None]:
    """Add to a run's config what it lacks."""
    call = open_run(ledger.run_ids[0], config)
    (run,) = yield from called(session, call, session.timeout_s, session.home_of(ledger))
    ledger.config = run.info.config


def rejoin(session: Session, ledger: Ledger[Any]) -> Procedure[None]:
    """Join a run again that fell off: ask a daemon where it stands, and send what it lacks.

    Goes on until that is done, is refused, or nobody needs it any more.
    """
    patience_s = session.timeout_s
    try:
        while session.needs_joining(ledger):
            yield Pause(session.backoffs.setdefault(ledger, Backoff()).next_s())
            if not session.needs_joining(ledger):
                return
            if not session.addresses.several:
                patience_s = LONGEST_ATTEMPT_S
            try:
                yield from _reopened(session, ledger, Deadline(patience_s))
            except PASSING as error:
                session.setbacks[ledger] = error
            except DENIALS as error:
                session.setbacks[ledger] = error
                if not ledger.can_stand_in():
                    raise
            patience_s = min(2 * patience_s, LONGEST_ATTEMPT_S)
    except RunFinishedError as error:
        ledger.is_finished = True
        ledger.refuse_all(error)
    except MlrsError as error:
        ledger.refuse_all(error)
    finally:
        session.joining.discard(ledger)
        ledger.changed.notify_all()


def _reopened(session: Session, ledger: Ledger[Any], deadline: Deadline) -> Procedure[None]:
    """Open a run where it is owned, and let it take part there.

    A sweep may take several calls. Those that were made count, also in the next attempt.
    """
    place, runs = session.reopened.get(ledger, ("", []))
    route = Route(session.addresses, deadline, place or session.home_of(ledger))
    while len(runs) < ledger.size:
        part = yield from routed(reopening(ledger.run_ids, len(runs)), route)
        if route.address != place:  # handles are a daemon's own: what another one opened is no use
            is_first = not runs
            place, runs = route.address, []
            session.reopened[ledger] = place, runs
            if not is_first:
                continue
        runs += part
    del session.reopened[ledger]
    ledger.rejoin(Opened(tuple(runs)))
    if session.needs_joining(ledger):
        session.join(ledger, place)
    session.setbacks.pop(ledger, None)
