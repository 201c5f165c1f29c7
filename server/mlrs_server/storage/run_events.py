"""The events of runs, as rows: the newest of each run, numbered from its first one on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mlrs_server.domain.run_events import RecordedEvent, RunEvent, RunEventKind
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.protocol import RunKey
from mlrs_server.storage.tables import run_events

KEPT = 1000
"""The number of newest events that are kept of a run."""
_KINDS = frozenset(RunEventKind)
_event = run_events.c


def add(connection: sa.Connection, run: RunKey, event: RunEvent) -> None:
    """Record an event of a run. One that repeats the newest event of a fallback updates that one."""
    if event.kind == RunEventKind.FALLBACK and _extended(connection, run, event):
        return
    newest = connection.execute(
        sa.select(sa.func.max(_event.number)).where(_event.run_key == run.key)
    ).scalar()
    number = (newest or 0) + 1
    values = {"kind": int(event.kind), "step": event.step, "from_step": event.from_step, "count": event.count}
    connection.execute(run_events.insert().values(run_key=run.key, number=number, time=time.time(), **values))
    connection.execute(run_events.delete().where(_event.run_key == run.key, _event.number <= number - KEPT))


def _extended(connection: sa.Connection, run: RunKey, event: RunEvent) -> bool:
    """Update the newest fallback of a run if it began at the same step; return whether it did.

    A client whose call was not answered tells its fallback again, which may have taken more steps meanwhile.
    """
    fallbacks = sa.and_(_event.run_key == run.key, _event.kind == int(RunEventKind.FALLBACK))
    query = sa.select(run_events).where(fallbacks).order_by(_event.number.desc()).limit(1)
    last = connection.execute(query).one_or_none()
    if last is None or last.step != event.step:
        return False
    this = sa.and_(_event.run_key == run.key, _event.number == last.number)
    connection.execute(run_events.update().where(this).values(count=event.count))
    return True


def of_run(connection: sa.Connection, key: int, after: int) -> Sequence[RecordedEvent]:
    """Return the events of a run beyond a number, in order.

    Raises:
        AdvisorError: a newer version of mlrs wrote one.
    """
    query = sa.select(run_events).where(_event.run_key == key, _event.number > after).order_by(_event.number)
    return [_event_of(row) for row in connection.execute(query)]


def _event_of(row: Any) -> RecordedEvent:
    if row.kind not in _KINDS:
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"a run has an event of a kind, {row.kind}, of a newer version of mlrs; upgrade mlrs",
        )
    return RecordedEvent(
        number=row.number,
        time=row.time,
        kind=RunEventKind(row.kind),
        step=row.step,
        from_step=row.from_step,
        count=row.count,
    )


def drop(connection: sa.Connection, key: int) -> None:
    """Drop the events of a run."""
    connection.execute(run_events.delete().where(_event.run_key == key))
