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
_ADD = sa.text("""INSERT INTO run_events (run_key, number, time, kind, step, from_step, count)
SELECT :run_key, 1 + COALESCE((SELECT max(number) FROM run_events WHERE run_key = :run_key), 0), :time, :kind,
    :step, CAST(:from_step AS BIGINT), CAST(:count AS BIGINT)
WHERE :kind <> :fallback OR NOT EXISTS (
    SELECT 1 FROM run_events WHERE run_key = :run_key AND step = :step AND number = (
        SELECT max(number) FROM run_events WHERE run_key = :run_key AND kind = :fallback))""")
"""Records an event, unless it repeats the newest fallback."""
_REPEAT = sa.text("""UPDATE run_events SET count = CAST(:count AS BIGINT)
WHERE run_key = :run_key AND step = :step AND number = (
    SELECT max(number) FROM run_events WHERE run_key = :run_key AND kind = :fallback)""")
"""Sets the count of the newest fallback, if it began at the same step."""
_PRUNE = sa.text("""DELETE FROM run_events WHERE run_key = :run_key AND number <= (
    SELECT max(number) FROM run_events WHERE run_key = :run_key) - :kept""")
"""Drops the events beyond those that are kept."""


def add(connection: sa.Connection, events: Sequence[tuple[RunKey, RunEvent | None]]) -> None:
    """Record events of runs, some of which may have none; at most one of each run is of a fallback.

    A fallback that began at the same step as the newest one of its run replaces that one's count: a client
    whose call was not answered tells its fallback again, which may have taken more steps meanwhile.
    """
    rows = [
        {
            "run_key": run.key,
            "time": time.time(),
            "kind": int(event.kind),
            "step": event.step,
            "from_step": event.from_step,
            "count": event.count,
            "fallback": int(RunEventKind.FALLBACK),
        }
        for run, event in events
        if event is not None
    ]
    if rows:  # statements of one kind together: a sweep has thousands of runs
        connection.execute(_ADD, rows)
        connection.execute(_PRUNE, [{"run_key": row["run_key"], "kept": KEPT} for row in rows])
    if fallbacks := [row for row in rows if row["kind"] == row["fallback"]]:
        connection.execute(_REPEAT, fallbacks)


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
