"""Lists of runs: pages by id, by recency or by creation, of the runs that have some traits.

A page by id or by creation is read along the index of its order, and the reading ends with its last run.
Where few runs have one of the traits, they are found by it instead, and sorted. By recency, all runs of the
tenant are sorted where not few can be meant: an index on what every flush changes would cost each flush. On
SQLite, such a page takes about 5 ms of 10,000 runs, and 50 ms of 100,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.sql.operators import custom_op

from mlrs_core.config import ScheduleKind
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError
from mlrs_server.storage.positions import Creation, Position, Recency, RunTraits
from mlrs_server.storage.protocol import StoredRun
from mlrs_server.storage.tables import models, of_tenant, run_of, run_tags, runs
from mlrs_server.tenancy import SEPARATOR, full_name

log = structlog.get_logger()

FEW = 4000
"""So many runs are sorted at most, rather than read in their order."""
_PLUS = custom_op[Any]("+")
_Column = Callable[[str], sa.ColumnElement[Any]]
_KINDS = frozenset(kind.spelling for kind in ScheduleKind)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The runs of a list."""

    prefix: str
    """Their ids, without the tenant, begin with this."""
    status: RunStatus | None
    """Their stored status; `None` is any."""
    tenant: str
    """The tenant that they belong to."""
    traits: RunTraits
    """What else they have."""

    @property
    def is_empty(self) -> bool:
        """Whether no run can be meant: no id has such characters, and PostgreSQL rejects some of them."""
        texts = (self.prefix, self.traits.contains)
        return any(not text.isascii() or "\x00" in text or SEPARATOR in text for text in texts)


def page(connection: sa.Connection, choice: Choice, after: Position, limit: int) -> list[StoredRun]:
    """Return the readable runs of a list beyond a position, at most `limit`, in the order of the position."""
    if choice.is_empty:
        return []
    few = _few(connection, choice, after)
    unindexed = partial(_unindexed, connection)
    along: _Column = runs.c.__getitem__ if few is None else unindexed
    is_part = bool(choice.tenant or choice.prefix)
    by_id = isinstance(after, str) or (isinstance(after, Recency) and is_part)
    run_id = along("run_id") if by_id else unindexed("run_id")
    in_range = of_tenant(choice.tenant, choice.prefix, column=run_id)
    query = sa.select(runs).where(in_range, *_conditions(connection, choice, unindexed))
    if few is not None:
        query = query.where(runs.c.key.in_(few))
    rows = (
        row
        for ordered in _ordered(query, along, unindexed("run_id"), after, choice.tenant)
        for row in _rows(connection, ordered, limit)
    )
    return list(islice(readable(rows), limit))


def readable(rows: Iterable[Any]) -> Iterator[StoredRun]:
    """Yield the runs of rows, except those that are damaged or written by a newer version."""
    for row in rows:
        try:
            yield run_of(row)
        except AdvisorError as error:
            log.warning("run_unreadable", run_id=row.run_id, problem=str(error))


def _rows(connection: sa.Connection, query: sa.Select[Any], size: int) -> Iterator[Any]:
    """Yield the rows of an ordered query, read `size` at a time, as a page must not read a whole list."""
    start, rows = 0, connection.execute(query.limit(size)).all()
    while rows:
        yield from rows
        if len(rows) < size:
            return
        start += size
        rows = connection.execute(query.limit(size).offset(start)).all()


def _ordered(
    query: sa.Select[Any], along: _Column, unindexed_id: sa.ColumnElement[str], after: Position, tenant: str
) -> list[sa.Select[Any]]:
    """Return queries that together give the rows beyond a position, in order; `along` has what sorts them."""
    run_id = along("run_id")
    if isinstance(after, str):
        last = after.partition("\x00")[0]
        return [(query.where(run_id > full_name(tenant, last)) if last else query).order_by(run_id)]
    last = full_name(tenant, after.run_id)
    if isinstance(after, Creation):
        return [_older(query, along("create_time"), after.create_time, unindexed_id < last, run_id)]
    moved = query.where(along("update_time") > after.newest).order_by(unindexed_id)
    if after.update_time > after.newest:
        return [moved.where(unindexed_id > last)]
    return [_older(query, along("update_time"), after.update_time, unindexed_id < last, run_id), moved]


def _older(
    query: sa.Select[Any],
    time: sa.ColumnElement[float],
    before: float,
    beyond: sa.ColumnElement[bool],
    run_id: sa.ColumnElement[str],
) -> sa.Select[Any]:
    """Return the query of what is older than a time, or as old and `beyond`, the newest first.

    Ids descend where times are the same, as an index is read from its end.
    """
    return query.where(time <= before, sa.or_(time < before, beyond)).order_by(time.desc(), run_id.desc())


def _few(connection: sa.Connection, choice: Choice, after: Position) -> sa.Select[Any] | None:
    """Return the query of the keys of at most `FEW` runs that the list is among; `None`: there is none."""
    for source in _sources(choice, after):
        first = sa.select(sa.func.count()).select_from(source.limit(FEW + 1).subquery())
        if connection.execute(first).scalar_one() <= FEW:
            return source
    return None


def _sources(choice: Choice, after: Position) -> Iterator[sa.Select[Any]]:
    """Yield queries of keys, which are read from an index alone, and among which the runs of a list are."""
    own, traits = runs.alias(), choice.traits
    keys = sa.select(own.c.key)
    for name, value in traits.tags.items():
        yield sa.select(run_tags.c.run_key).where(_is_tag(name, value))
    if traits.task:
        yield keys.where(_is_of_task(own.c.__getitem__, traits.task, choice.tenant))
    if traits.model:
        yield keys.where(_is_of_model(own.c.__getitem__, traits, choice.tenant))
    if not isinstance(after, str) and (choice.tenant or choice.prefix):
        yield keys.where(of_tenant(choice.tenant, choice.prefix, column=own.c.run_id))


def _conditions(
    connection: sa.Connection, choice: Choice, column: _Column
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what the runs of a list have besides the tenant and the beginning of their ids."""
    traits, tenant = choice.traits, choice.tenant
    if choice.status is not None:
        yield column("status") == int(choice.status)
    if traits.contains:
        run_id = column("run_id")
        bare = sa.func.substr(run_id, len(full_name(tenant, "")) + 1) if tenant else run_id
        position = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
        yield position(bare, traits.contains) > 0
    if traits.model:
        yield _is_of_model(column, traits, tenant)
    if traits.task:
        yield _is_of_task(column, traits.task, tenant)
    for name, value in traits.tags.items():
        yield sa.exists().where(run_tags.c.run_key == runs.c.key, _is_tag(name, value))


def _is_tag(name: str, value: str) -> sa.ColumnElement[bool]:
    is_named = run_tags.c.name == name.encode()
    return sa.and_(is_named, run_tags.c.value == value.encode()) if value else is_named


def _is_of_task(column: _Column, task: str, tenant: str) -> sa.ColumnElement[bool]:
    is_own = sa.and_(column("task") == "", column("run_id") == full_name(tenant, task))
    return sa.or_(column("task") == task, is_own)  # "" is the run's id


def _is_of_model(column: _Column, traits: RunTraits, tenant: str) -> sa.ColumnElement[bool]:
    """Return the condition for a model that a tenant has, or shares with all, and for no schedule."""
    digest = column("model_digest")
    conditions: list[sa.ColumnElement[bool]] = [
        column("model_name").in_(sorted({traits.model, full_name(tenant, traits.model)}))
    ]
    if traits.digest:
        conditions.append(sa.func.substr(digest, 1, len(traits.digest)) == traits.digest)
    if traits.model in _KINDS:  # a model may be called as a kind of schedule is, whose digest no model has
        conditions.append(sa.exists().where(models.c.digest == digest))
    return sa.and_(*conditions)


def _unindexed(connection: sa.Connection, name: str) -> sa.ColumnElement[Any]:
    """Return a column of runs for a condition by which they are not to be found.

    SQLite, which does not know how many runs have a value, would find them by it, and sort what it finds.
    """
    column = runs.c[name]
    if connection.dialect.name != "sqlite":
        return column
    return sa.UnaryExpression(column, operator=_PLUS, type_=column.type)
