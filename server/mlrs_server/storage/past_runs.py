"""What is remembered of the runs of tasks, as rows: JSON, closed by a checksum.

A run that takes part in the memory of its task has a row from its creation on, which is filled in when it
ends. The row stays when the run is deleted afterwards. A row that was forgotten is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from mlrs_core.config import Measure, Optimizer, Recalled
from mlrs_core.memory import Ending, PastRun
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.protocol import NewRun, RememberedTask, StoredRun
from mlrs_server.storage.sealing import seal, unseal
from mlrs_server.storage.tables import BEGIN_PAST_RUN, of_tenant, past_runs, run_of, runs
from mlrs_server.tenancy import bare, full_name, tenant_of

log = structlog.get_logger()

_JSON = json.JSONEncoder(default=vars)


def task_of(run: NewRun) -> str:
    """Return the full name of a run's task."""
    return full_name(tenant_of(run.run_id), run.task or bare(run.run_id))


def begin(connection: sa.Connection, new: Sequence[StoredRun]) -> None:
    """Note that runs which take part in the memory of their tasks are under way."""
    rows = [
        {"task": task_of(run), "run_key": run.key, "time": run.create_time}
        for run in new
        if run.config.recalled is not None
    ]
    if rows:
        connection.execute(BEGIN_PAST_RUN, rows)


def end(connection: sa.Connection, ended: Sequence[tuple[StoredRun, PastRun]]) -> None:
    """Note how runs ended, of those that were not forgotten meanwhile."""
    for run, past in ended:
        connection.execute(
            past_runs.update().where(past_runs.c.run_key == run.key).values(record=pack(past), time=past.time)
        )


def drop(connection: sa.Connection, key: int) -> None:
    """Drop what is noted of a run that has not ended."""
    connection.execute(past_runs.delete().where(past_runs.c.run_key == key, past_runs.c.record.is_(None)))


def of_run(connection: sa.Connection, run: StoredRun) -> PastRun | None:
    """Return how a run ended, if that is remembered."""
    query = sa.select(past_runs.c.record).where(
        past_runs.c.run_key == run.key, past_runs.c.record.is_not(None)
    )
    record = connection.execute(query).scalar_one_or_none()
    return None if record is None else unpack(record, run.run_id)


def of_task(connection: sa.Connection, task: str, limit: int) -> list[PastRun | StoredRun]:
    """Return the runs of a task, the newest first, those under way as they are stored.

    Runs whose rows are damaged, or of a newer version, are left out.
    """
    query = (
        sa.select(past_runs.c.record.label("past"), runs)
        .join_from(
            past_runs,
            runs,
            sa.and_(runs.c.key == past_runs.c.run_key, past_runs.c.record.is_(None)),
            isouter=True,
        )
        .where(past_runs.c.task == task)
        .order_by(past_runs.c.run_key.desc())
        .limit(limit)
    )
    found: list[PastRun | StoredRun] = []
    for row in connection.execute(query):
        try:
            if row.past is not None:
                found.append(unpack(row.past, task))
            elif row.key is not None:
                found.append(run_of(row))
        except AdvisorError as error:
            log.warning("past_run_unreadable", task=task, problem=str(error))
    return found


def tasks(connection: sa.Connection, tenant: str, after: str, limit: int) -> list[RememberedTask]:
    """Return a tenant's tasks beyond the one of the bare name `after`, ordered by name."""
    query = (
        sa.select(past_runs.c.task, sa.func.count(), sa.func.max(past_runs.c.time))
        .where(of_tenant(tenant, column=past_runs.c.task))
        .group_by(past_runs.c.task)
        .order_by(past_runs.c.task)
        .limit(limit)
    )
    if after:
        query = query.where(past_runs.c.task > full_name(tenant, after))
    return [RememberedTask(bare(task), count, when) for task, count, when in connection.execute(query)]


def count(connection: sa.Connection, task: str) -> RememberedTask | None:
    """Return a task by its full name, if anything is remembered of it."""
    query = sa.select(sa.func.count(), sa.func.max(past_runs.c.time)).where(past_runs.c.task == task)
    number, when = connection.execute(query).one()
    return RememberedTask(bare(task), number, when) if number else None


def forget(connection: sa.Connection, task: str) -> int:
    """Forget a task, also its runs under way, and return how many runs were remembered."""
    return connection.execute(past_runs.delete().where(past_runs.c.task == task)).rowcount


def pack(past: PastRun) -> bytes:
    """Return a past run as bytes."""
    return seal(_JSON.encode(past).encode())


def unpack(data: bytes, name: str) -> PastRun:
    """Return the past run in `data`; `name` is what messages call it by.

    Raises:
        AdvisorError: the bytes are damaged, or a newer version wrote what this one does not know.
    """
    body = unseal(data, name)
    try:
        values: dict[str, Any] = json.loads(body)
        if (recalled := values.pop("recalled")) is not None:
            recalled = Recalled(measure=Measure(recalled.pop("measure")), **recalled)
        ending, optimizer = Ending(values.pop("ending")), Optimizer(values.pop("optimizer"))
        return PastRun(ending=ending, optimizer=optimizer, recalled=recalled, **values)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"what is remembered of {name!r} is of a newer version of mlrs ({error}); upgrade mlrs",
        ) from error
