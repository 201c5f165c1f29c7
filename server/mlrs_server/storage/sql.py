"""Runs in an SQL database, through SQLAlchemy Core: what all engines share."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from mlrs_core.memory import PastRun
from mlrs_core.policy import Steps
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.model_index import Index
from mlrs_server.domain.notes import NoteChange
from mlrs_server.domain.run_events import RecordedEvent, RunEvent
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.failpoints import reach
from mlrs_server.storage import (
    adapted,
    codec,
    naming,
    notes,
    observation_log,
    past_runs,
    run_events,
    searches,
)
from mlrs_server.storage.chunks import CHUNK, pack_chunks
from mlrs_server.storage.engines.dialect import READS, Dialect, Row
from mlrs_server.storage.fence import Fence
from mlrs_server.storage.listing import Choice, page, readable
from mlrs_server.storage.positions import ANY, Position, RunTraits
from mlrs_server.storage.protocol import (
    NewRun,
    Observations,
    RememberedTask,
    RunKey,
    RunUpdates,
    StoredNetwork,
    StoredRun,
)
from mlrs_server.storage.sealing import Offsets
from mlrs_server.storage.tables import (
    FIND,
    MOVE,
    models,
    moved_to,
    observations,
    of_tenant,
    row_of,
    run_of,
    runs,
    settled_values,
)

AT_ONCE = 500
"""The number of values that a statement lists: SQLite before 3.32 takes at most 999."""

PACKED_AT_ONCE = 2048
"""The number of runs packed at a time as they are stored: hundreds of thousands of small objects would
fragment the memory."""

T = TypeVar("T")


class SqlStore:
    """`Store` in an SQL database."""

    def __init__(self, engine: sa.Engine, dialect: Dialect, fence: Fence) -> None:
        """Wrap an open engine; `open_store` makes it."""
        self.fence = fence
        """Checked before each write."""
        self._engine = engine
        self._readers = engine.execution_options(**{READS: True})
        self._dialect = dialect

    @property
    def name(self) -> str:
        """The file, or the URL without its password."""
        return self._dialect.name

    @property
    def engine_name(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Run a block in a transaction that may write, without asking the fence.

        On PostgreSQL it may be used from any thread, each with a connection of its own.

        Raises:
            AdvisorError: the database fails; nothing is changed.
        """
        done = False
        try:
            with self._translated(), self._engine.begin() as connection:
                yield connection
                done = True
            reach("store.committed")
        except AdvisorError as error:
            error.ambiguous = done
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Run a block in a transaction that only reads.

        Raises:
            AdvisorError: the database fails.
        """
        with self._translated(), self._readers.begin() as connection:
            yield connection

    @contextmanager
    def frozen(self) -> Iterator[sa.Connection]:
        """Run a long block that reads the database as it is at its beginning.

        Raises:
            AdvisorError: the database fails.
        """
        with self.reading() as connection:
            self._dialect.freeze(connection)
            yield connection

    def inspect(self) -> str | None:
        """Return what is wrong with the database's own structures, if it can say."""
        with self.reading() as connection:
            return self._dialect.inspect(connection)

    def give_keys_after(self, connection: sa.Connection, last: int) -> None:
        """Give new runs keys greater than `last`, after runs were inserted with keys of their own."""
        self._dialect.give_keys_after(connection, last)

    def vacuum(self) -> None:
        """Free the space of deleted rows. Meanwhile the store needs up to twice its space.

        Raises:
            AdvisorError: the database fails.
        """
        with self._translated():
            self._dialect.vacuum(self._engine)

    @contextmanager
    def _writing(self, shards: Collection[int]) -> Iterator[sa.Connection]:
        """Run a block that writes runs of these shards, if the fence permits it."""
        with self.transaction() as connection:
            self.fence.check(connection, shards)
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated(self._dialect, f"the store {self.name}"):
                yield
        except AdvisorError as error:
            if error.__cause__ is not None and self._dialect.is_spoilt(error.__cause__):
                self._engine.dispose()  # the next transaction connects anew
            raise

    def create(
        self,
        new: Sequence[NewRun],
        dropped: Sequence[RunKey] = (),
        ended: Sequence[tuple[RunKey, PastRun]] = (),
    ) -> list[StoredRun]:
        """Store new runs and delete those they replace, all or none; return the new runs in order."""
        if not new:
            return []
        now = time.time()
        with self._writing({run.shard for run in new} | {old.shard for old in dropped}) as connection:
            past_runs.end(connection, ended)
            for old in dropped:
                _delete(connection, old)
            # Keys are chosen here, since an insert of many rows does not return those it gave.
            stored = [
                StoredRun(**vars(run), key=key, create_time=now, update_time=now)
                for key, run in zip(self._dialect.next_keys(connection, len(new)), new, strict=True)
            ]
            if self._dialect.insert(connection, [row_of(run) for run in stored]) < len(stored):
                taken = _first_taken(connection, stored)
                raise AdvisorError(Reason.RUN_EXISTS, f"run_id: {taken!r} is taken", field="run_id")
            notes.begin(connection, stored)
            past_runs.begin(connection, stored)
            reach("store.create")
        return stored

    def get(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return the runs that exist, by id; any number."""
        with self.reading() as connection:
            found = [
                run
                for some in _parts(run_ids)
                for run in notes.with_tags(
                    connection, [run_of(row) for row in connection.execute(FIND, {"run_ids": some})]
                )
            ]
        return {run.run_id: run for run in found}

    def find(self, run_ids: Sequence[str]) -> dict[str, RunKey]:
        """Return the keys of the runs that exist, by id; nothing else of them is read."""
        found = sa.select(runs.c.run_id, runs.c.key, runs.c.shard, runs.c.status, runs.c.feeder)
        with self.reading() as connection:
            return {
                row.run_id: row
                for some in _parts(run_ids)
                for row in connection.execute(found.where(runs.c.run_id.in_(some)))
            }

    def list(
        self,
        *,
        prefix: str,
        status: RunStatus | None,
        after: Position,
        limit: int,
        tenant: str = "",
        traits: RunTraits = ANY,
    ) -> list[StoredRun]:
        """Return a tenant's readable runs beyond a position, in its order."""
        choice = Choice(prefix=prefix, status=status, tenant=tenant, traits=traits)
        with self.reading() as connection:
            found = page(connection, choice, after, limit)
            return [run for some in _parts(found) for run in notes.with_tags(connection, some)]

    def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        query = sa.select(sa.func.count()).where(of_tenant(tenant), runs.c.status != int(RunStatus.FINISHED))
        with self.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def unfinished_by_shard(self, tenant: str) -> Mapping[int, int]:
        """Return how many runs of a tenant are not finished in each shard that has any."""
        unfinished = of_tenant(tenant), runs.c.status != int(RunStatus.FINISHED)
        columns = runs.c.shard, sa.func.count().label("unfinished")
        query = sa.select(*columns).where(*unfinished).group_by(runs.c.shard)
        with self.reading() as connection:
            return {row.shard: row.unfinished for row in connection.execute(query)}

    def append(self, updates: Sequence[RunUpdates]) -> None:
        """Store new observations and meta updates of runs, all or none; idempotent."""
        now = time.time()
        shards = {shard for update in updates for shard in np.unique(update.records["shard"]).tolist()}
        applied, checkpoints = adapted.rows_of(updates)
        with self._writing(shards) as connection:
            for part in (part for update in updates for part in update.parts(PACKED_AT_ONCE)):
                self._dialect.append(connection, list(_chunks_of(part)), list(_moves_of(part, now)))
            adapted.store_rows(connection, applied, checkpoints)
            reach("store.commit")

    def read(self, key: int, first_step: int, limit: int, *, most_chunks: int | None = None) -> Observations:
        """Return a run's record from a step on, at most `limit` steps."""
        with self.reading() as connection:
            return observation_log.read(connection, key, first_step, limit, most_chunks)

    def recall(self, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
        """Return the recorded answers to steps of runs; the reason is 0 where none can be read."""
        with self.reading() as connection:
            return observation_log.recall(connection, keys, steps)

    def pick(self, key: int, steps: Steps) -> Observations:
        """Return what is recorded of a few steps of a run; the reason is 0 where none can be read."""
        with self.reading() as connection:
            return observation_log.pick(connection, key, steps)

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of the steps [first_step, first_step + limit), in order."""
        with self.reading() as connection:
            return adapted.read_updates(connection, key, first_step, limit)

    def last_updates_of(self, key: int, first_step: int, end: int, width: int) -> Sequence[MetaUpdate]:
        """Return the last meta update of each stretch of `width` steps of [first_step, end), in order."""
        with self.reading() as connection:
            return adapted.last_updates_of(connection, key, first_step, end, width)

    def last_updates(self, keys: Sequence[int]) -> dict[int, MetaUpdate]:
        """Return the newest meta update of each run, by key, of those that have one that is not damaged."""
        with self.reading() as connection:
            return {key: one for some in _parts(keys) for key, one in adapted.last_updates(connection, some)}

    def network(self, key: int) -> StoredNetwork | None:
        """Return the newest checkpoint of a run's adapted weights, if any."""
        with self.reading() as connection:
            return adapted.network_of(connection, key)

    def search(self, key: int) -> tuple[int, RecordedSearch] | None:
        """Return the number and the content of a run's newest search, if it began one."""
        with self.reading() as connection:
            return searches.newest(connection, key)

    def put_search(
        self, run: StoredRun, attempt: int, search: RecordedSearch, settled: NewRun | None = None
    ) -> None:
        """Store a search with its trials so far, and the run that it leads to, if it is at its end."""
        with self._writing({run.shard}) as connection:
            searches.put(connection, run.key, attempt, search)
            if settled is not None:
                connection.execute(
                    runs.update().where(runs.c.key == run.key).values(**settled_values(settled))
                )
            reach("store.search")

    def complete(self, run: StoredRun) -> None:
        """Replace the config, and the state, of a run that has no observation yet."""
        with self._writing({run.shard}) as connection:
            connection.execute(runs.update().where(runs.c.key == run.key).values(**settled_values(run)))

    def resize(self, run: StoredRun, world_size: int, event: RunEvent | None = None) -> None:
        """Set the number of a run's ranks."""
        with self._writing({run.shard}) as connection:
            connection.execute(runs.update().where(runs.c.key == run.key).values(world_size=world_size))
            run_events.add(connection, [(run, event)])

    def set_feeder(
        self, taken: Sequence[StoredRun], feeder: str, events: Sequence[tuple[RunKey, RunEvent | None]] = ()
    ) -> None:
        """Set the feeder of some runs, and record events of these, all or none."""
        with self._writing({run.shard for run in taken}) as connection:
            _set(connection, taken, feeder=feeder)
            run_events.add(connection, events)

    def add_events(self, events: Sequence[tuple[RunKey, RunEvent | None]]) -> None:
        """Record events of runs, all or none."""
        with self._writing({run.shard for run, _ in events}) as connection:
            run_events.add(connection, events)

    def run_events(self, key: int, after: int) -> Sequence[RecordedEvent]:
        """Return the events of a run beyond a number, in order."""
        with self.reading() as connection:
            return run_events.of_run(connection, key, after)

    def finish(self, going: Sequence[StoredRun], ended: Sequence[tuple[StoredRun, PastRun]] = ()) -> None:
        """Mark some runs as finished, all or none, and store how runs ended."""
        shards = {run.shard for run in going} | {run.shard for run, _ in ended}
        with self._writing(shards) as connection:
            _set(connection, going, status=int(RunStatus.FINISHED))
            past_runs.end(connection, ended)

    def change_notes(self, run_id: str, change: NoteChange) -> None:
        """Change the tags and the note of a run.

        The fence is not asked. It keeps a daemon that does not own a run from writing over what its owner
        advised. Nobody holds tags and notes in memory, no other statement writes them, and the run's row is
        locked meanwhile, so that any daemon may change them and no change is lost.
        """
        with self.transaction() as connection:
            notes.change(connection, run_id, change)
            reach("store.notes")

    def past_run(self, run: StoredRun) -> PastRun | None:
        """Return how a run ended, if that is remembered."""
        with self.reading() as connection:
            return past_runs.of_run(connection, run)

    def past_runs(self, task: str, limit: int, family: str | None = None) -> Sequence[PastRun | StoredRun]:
        """Return the runs of a task, the newest first; those under way as they are stored."""
        with self.reading() as connection:
            return past_runs.of_task(connection, task, limit, family)

    def silent(self, *, before: float, shards: Collection[int] | None, limit: int) -> Sequence[StoredRun]:
        """Return runs that tasks wait for and that were last observed before a time."""
        with self.reading() as connection:
            return past_runs.silent(connection, before, shards, limit)

    def tasks(self, tenant: str, *, after: str, limit: int) -> Sequence[RememberedTask]:
        """Return a tenant's tasks of which something is remembered, by name."""
        with self.reading() as connection:
            return past_runs.tasks(connection, tenant, after, limit)

    def task(self, task: str) -> RememberedTask | None:
        """Return a task by its full name, if anything is remembered of it."""
        with self.reading() as connection:
            return past_runs.count(connection, task)

    def forget(self, task: str) -> int:
        """Forget the runs of a task, and return how many there were."""
        with self.transaction() as connection:
            return past_runs.forget(connection, task)

    def rewind(self, run: StoredRun, snapshot: RunSnapshot, event: RunEvent | None = None) -> None:
        """Rewind a run to a snapshot: drop what is recorded from `snapshot.next_step` on."""
        with self._writing({run.shard}) as connection:
            observation_log.cut(connection, run.key, snapshot.next_step)
            adapted.drop(connection, run.key, snapshot.next_step)
            past_runs.reopen(connection, run.key)
            connection.execute(MOVE, [moved_to(run.key, snapshot)])
            run_events.add(connection, [(run, event)])

    def loose(
        self, *, at_least: int, before: float, shards: Collection[int] | None, limit: int
    ) -> Sequence[StoredRun]:
        """Return inactive runs with at least so many chunks to merge, the least recent first."""
        resting = sa.or_(runs.c.status == int(RunStatus.FINISHED), runs.c.update_time < before)
        query = sa.select(runs).where(runs.c.loose_chunks >= at_least, resting).order_by(runs.c.update_time)
        if shards is not None:
            query = query.where(runs.c.shard.in_(shards))
        with self.reading() as connection:
            return tuple(readable(connection.execute(query.limit(limit)).all()))

    def merge(self, run: StoredRun, first_step: int = 0) -> int | None:
        """Merge small chunks of a run into a large one; return the first step of the next, if any."""
        with self._writing({run.shard}) as connection:
            return observation_log.merge(connection, run.key, run.run_id, first_step)

    def delete(self, run: RunKey, ended: PastRun | None = None) -> None:
        """Delete a run and its record; `ended` says how it ended, if that is remembered."""
        with self._writing({run.shard}) as connection:
            past_runs.end(connection, [] if ended is None else [(run, ended)])
            _delete(connection, run)

    def model_index(self, known: Index) -> Index:
        """Return the names and aliases of models; `known` itself, if they are unchanged."""
        with self.reading() as connection:
            return naming.read_index(connection, known)

    def change_models(self, change: Callable[[Index], Index], files: Mapping[str, bytes]) -> Index:
        """Store files of models, by the digest of their content, and change the index; return it."""
        with self.transaction() as connection:
            return naming.change_index(connection, change, files)

    def models(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return the files of models that exist, by digest."""
        with self.reading() as connection:
            rows = [
                row
                for some in _parts(digests)
                for row in connection.execute(sa.select(models).where(models.c.digest.in_(some)))
            ]
        return {row.digest: row.data for row in rows}

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _set(connection: sa.Connection, some: Sequence[StoredRun], **values: object) -> None:
    """Set columns of some runs."""
    for keys in _parts([run.key for run in some]):
        connection.execute(runs.update().where(runs.c.key.in_(keys)).values(**values))


def _delete(connection: sa.Connection, run: RunKey) -> None:
    """Delete a run and its record."""
    connection.execute(observations.delete().where(observations.c.run_key == run.key))
    adapted.drop(connection, run.key)
    searches.drop(connection, run.key)
    past_runs.drop(connection, run.key)
    run_events.drop(connection, run.key)
    connection.execute(runs.delete().where(runs.c.key == run.key))
    notes.drop(connection, run.key)


def _chunks_of(update: RunUpdates) -> Iterator[Row]:
    """Yield the rows of new observations; a run that only had a meta update has none."""
    answers = update.answers
    some = np.flatnonzero(np.diff(update.bounds))
    bounds = np.append(update.bounds[some], update.bounds[-1])
    keys, bounds = _split(update.records["key"][some], bounds)
    yield from zip(
        keys.tolist(),
        answers["step"][bounds[:-1]].tolist(),
        np.diff(bounds).tolist(),
        pack_chunks(
            Observations(answers["loss"], answers["lr"], answers["reason"], extras=update.extras), bounds
        ),
        strict=True,
    )


def _split(keys: npt.NDArray[np.int64], bounds: Offsets) -> tuple[npt.NDArray[np.int64], Offsets]:
    """Return the keys and bounds of chunks of at most `CHUNK` steps, given those of runs, (k,) and (k + 1,).

    A run that many steps are sent of at once would otherwise have chunks of any size.
    """
    counts = -(-np.diff(bounds) // CHUNK)
    if (counts <= 1).all():
        return keys, bounds
    index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(bounds[:-1], counts) + CHUNK * index
    return np.repeat(keys, counts), np.append(starts, bounds[-1])


def _moves_of(update: RunUpdates, now: float) -> Iterator[Row]:
    """Yield what moves runs to where they are after an update."""
    keys, statuses = update.records["key"].tolist(), update.records["status"].tolist()
    snapshots = codec.pack_snapshots(update.records, update.states)
    yield from zip(statuses, snapshots, repeat(now), keys, strict=False)


def _first_taken(connection: sa.Connection, stored: Sequence[StoredRun]) -> str | None:
    """Return the first id of runs just inserted that another run has, or that is given twice."""
    keys: dict[str, int] = {}
    for some in _parts([run.run_id for run in stored]):
        rows = connection.execute(sa.select(runs.c.run_id, runs.c.key).where(runs.c.run_id.in_(some)))
        keys.update((row.run_id, row.key) for row in rows)
    return next((run.run_id for run in stored if keys.get(run.run_id) != run.key), None)


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values in parts that a statement can list."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


@contextmanager
def translated(dialect: Dialect, what: str) -> Iterator[None]:
    """Translate the database's exceptions into the daemon's; nothing else does."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise AdvisorError(Reason.STORE, f"{what}: {dialect.explain(error)}") from error
