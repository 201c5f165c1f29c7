"""Actions: what a user's call does in several waits and RPCs, written once for threads and asyncio.

`Connection.act` of either client runs an action, and closes it if Ctrl-C or a cancellation interrupts it.
"""

from __future__ import annotations

from typing import Any, TypeVar

from mlrs.errors import MlrsError, StepAheadError, UnavailableError
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.joining import called
from mlrs.protocol.routing import Call
from mlrs.protocol.waiting import Action, Perform, check_complete, is_away, opened, paused, settled
from mlrs.transport.base_connection import BaseConnection
from mlrs.values.types import RunInfo
from mlrs.wire import calls
from mlrs.wire.unsent import let_go

C = TypeVar("C", bound=BaseConnection)
T = TypeVar("T")


def asked(connection: C, call: Call[T], timeout_s: float, home: str | None = None) -> Action[T]:
    """Make a unary call, first at the address `home` if that is given."""
    result: T = yield Perform(called(connection.session, call, timeout_s, home), timeout_s)
    return result


def read(connection: C, ledger: Ledger[Any]) -> Action[tuple[RunInfo, ...]]:
    """Read runs as the daemon knows them."""
    infos: tuple[RunInfo, ...] = ()
    for run_id in ledger.run_ids:
        infos += ((yield from asked(connection, calls.get_run(run_id), connection.timeout_s)),)
    return infos


def marked_finished(connection: C, ledger: Ledger[Any], deadline: Deadline) -> Action[tuple[RunInfo, ...]]:
    """Mark runs as finished; the daemon refuses if it lacks a step."""
    home = connection.session.home_of(ledger)
    infos: dict[str, RunInfo] = {}
    for call in calls.finishing(ledger.run_ids, ledger.next_step, ledger.outcome):
        marked = yield from asked(connection, call, deadline.left_s(), home)
        infos |= {info.id: info for info in marked}
    return tuple(infos[run_id] for run_id in ledger.run_ids)


def finished(
    connection: C, ledger: Ledger[Any], timeout_s: float | None
) -> Action[tuple[RunInfo, ...] | None]:
    """Send what the daemon lacks and mark the runs as finished; `None`: no daemon answered."""
    deadline = connection.deadline(timeout_s)
    try:
        infos = yield from _finished(connection, ledger, deadline)
    except MlrsError as error:
        if not is_away(ledger, error):
            raise
        connection.keep_unsent(ledger, error)
        return None
    ledger.is_finished = True
    let_go(ledger)
    connection.leave(ledger)
    return infos


def _finished(connection: C, ledger: Ledger[Any], deadline: Deadline) -> Action[tuple[RunInfo, ...]]:
    session, lacks = connection.session, False
    yield opened(session, ledger, deadline)
    while True:
        yield settled(session, ledger, deadline, again=lacks)
        try:
            infos = yield from marked_finished(connection, ledger, deadline)
        except StepAheadError:  # a daemon that went away had answered steps without storing them
            if not ledger.backlog.has_volatile() or not deadline.left_s():
                raise
            lacks = True
        except UnavailableError as error:
            yield paused(ledger, deadline, error)
        else:
            check_complete(ledger, infos)
            return infos
