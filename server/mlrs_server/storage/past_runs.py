"""What is remembered of the runs of tasks, as rows: JSON, closed by a checksum.

A run that takes part in the memory of its task has a row from its creation on, which is filled in when it
ends. The row stays when the run is deleted afterwards. A row that was forgotten is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import structlog

from mlrs_core.config import Measure, Optimizer, Recalled
from mlrs_core.memory import Ending, PastRun
from mlrs_server.errors import AdvisorError, DamagedError, Reason
from mlrs_server.storage.protocol import NewRun, RememberedTask, RunKey, StoredRun
from mlrs_server.storage.sealing import seal, unseal
from mlrs_server.storage.tables import BEGIN_PAST_RUN, of_tenant, past_runs, run_of, runs
from mlrs_server.tenancy import bare, full_name, tenant_of

log = structlog.get_logger()

_JSON = json.JSONEncoder(default=vars)
KEPT = 256
"""The number of newest runs of a task that are kept of those that ended."""
GOING = 64
"""The number of newest runs of a task that are read of those that have not."""


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


def end(connection: sa.Connection, ended: Sequence[tuple[RunKey, PastRun]]) -> None:
    """Note how runs ended, of those that were not forgotten meanwhile; only the newest of a task are kept."""
    for run, past in ended:
        values = {"record": pack(past), "time": past.time, "family": family_of(past)}
        connection.execute(past_runs.update().where(past_runs.c.run_key == run.key).values(**values))
        _prune(connection, run)


def _prune(connection: sa.Connection, run: RunKey) -> None:
    """Drop the oldest runs of a run's task that ended, beyond `KEPT`."""
    task = sa.select(past_runs.c.task).where(past_runs.c.run_key == run.key).scalar_subquery()
    those = sa.and_(past_runs.c.task == task, past_runs.c.record.is_not(None))
    oldest = sa.select(past_runs.c.run_key).where(those).order_by(past_runs.c.run_key.desc()).offset(KEPT)
    if (last := connection.execute(oldest.limit(1)).scalar()) is not None:
        connection.execute(past_runs.delete().where(those, past_runs.c.run_key <= last))


def reopen(connection: sa.Connection, key: int) -> None:
    """Note that a run which had ended is under way again."""
    connection.execute(past_runs.update().where(past_runs.c.run_key == key).values(record=None, family=None))


def drop(connection: sa.Connection, key: int) -> None:
    """Drop what is noted of a run that has not ended."""
    connection.execute(past_runs.delete().where(past_runs.c.run_key == key, past_runs.c.record.is_(None)))


def of_run(connection: sa.Connection, run: StoredRun) -> PastRun | None:
    """Return how a run ended, if that is remembered and can be read."""
    record = connection.execute(
        sa.select(past_runs.c.record).where(past_runs.c.run_key == run.key)
    ).scalar_one_or_none()
    try:
        return None if record is None else unpack(record, run.run_id)
    except DamagedError:
        return None


def of_task(
    connection: sa.Connection, task: str, limit: int, family: str | None = None
) -> list[PastRun | StoredRun]:
    """Return the runs of a task, the newest first, those under way as they are stored.

    Runs whose rows are damaged, or of a newer version, are left out.

    Args:
        connection: where.
        task: the full name.
        limit: at most so many that ended, and `GOING` that have not.
        family: the kind of optimizer that those which ended must say something about; `None`: all.
    """
    query = sa.select(past_runs.c.run_key, past_runs.c.record).where(past_runs.c.task == task)
    chosen = past_runs.c.record.is_not(None) if family is None else past_runs.c.family == family
    newest = past_runs.c.run_key.desc()
    rows = [*connection.execute(query.where(chosen).order_by(newest).limit(limit))]
    going = sa.and_(past_runs.c.task == task, past_runs.c.family.is_(None))
    runs_going = (
        sa.select(runs)
        .join_from(past_runs, runs, runs.c.key == past_runs.c.run_key)
        .where(going)
        .order_by(newest)
        .limit(GOING)
    )
    found: list[tuple[int, PastRun | StoredRun]] = []
    for row in rows:
        with _readable(task):
            found.append((row.run_key, unpack(row.record, task)))
    for row in connection.execute(runs_going):
        with _readable(task):
            found.append((row.key, run_of(row)))
    return [one for _, one in sorted(found, key=lambda pair: pair[0], reverse=True)]


def silent(
    connection: sa.Connection, before: float, shards: Collection[int] | None, limit: int
) -> list[StoredRun]:
    """Return runs that have not ended and were last observed before a time; see `Store.silent`."""
    query = (
        sa.select(runs)
        .join_from(past_runs, runs, runs.c.key == past_runs.c.run_key)
        .where(past_runs.c.record.is_(None), runs.c.update_time < before)
        .order_by(runs.c.update_time)
        .limit(limit)
    )
    if shards is not None:
        query = query.where(runs.c.shard.in_(shards))
    found = list[StoredRun]()
    for row in connection.execute(query):
        with _readable(row.run_id):
            found.append(run_of(row))
    return found


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Log a row that cannot be read, and go on without it."""
    try:
        yield
    except AdvisorError as error:
        log.warning("past_run_unreadable", of=name, problem=str(error))


def family_of(past: PastRun) -> str:
    """Return the kind of optimizer that a run's end says something about; "": it says nothing."""
    return past.setting.family if past.ending in (Ending.REACHED, Ending.DIVERGED) else ""


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
