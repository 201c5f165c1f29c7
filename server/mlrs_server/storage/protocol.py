"""The `Store` protocol, and the types that go in and out. A store is synchronous and used from one thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.config import RunConfig
from mlrs_core.memory import PastRun
from mlrs_core.policy import Floats, States, Steps
from mlrs_server.domain.extras import NO_EXTRAS, SparseExtras
from mlrs_server.domain.ledger import Records, RunStatus
from mlrs_server.domain.model_index import Index
from mlrs_server.domain.notes import NoteChange
from mlrs_server.domain.observations import Bytes, Table
from mlrs_server.domain.run_events import RecordedEvent, RunEvent
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.domain.updates import AppliedUpdate, MetaUpdate, WeightCheckpoints
from mlrs_server.storage.positions import ANY, Position, RunTraits


@dataclass(frozen=True)
class Observations:
    """Consecutive steps of a run's record, in columns, all (n,)."""

    losses: Floats
    lrs: Floats
    reasons: Bytes
    """The `AdviceReason` of each step, fresh or held, with the flag `RESTORE` beside it."""
    updates: Sequence[MetaUpdate] = ()
    """Meta updates that are read together with the steps, in order."""
    extras: SparseExtras = NO_EXTRAS
    """The signals and validation losses that came with the steps."""

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.losses)

    def cut(self, start: int, count: int) -> Observations:
        """Return at most `count` steps from a position on, without the updates, as views."""
        part = slice(start, start + count)
        return Observations(
            self.losses[part], self.lrs[part], self.reasons[part], extras=self.extras.cut(start, count)
        )


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run to create."""

    run_id: str
    """Its full name (`tenancy.py`)."""
    shard: int
    """The shard of its group, or of its id. The owner of the shard writes the run."""
    config: RunConfig
    model_name: str
    model_digest: str
    snapshot: RunSnapshot
    world_size: int = 0
    """The number of its ranks; 0 without `config.ranks`."""
    task: str = ""
    """The name of the task, as the tenant gave it; "" is the run's id."""
    feeder: str = ""
    """The id of the process that sends its observations; "" if it is not known."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What people have noted of it, by name."""
    note: str = ""
    """A note for people."""
    counters_at: int = 0
    """The offset of the meta counters in its state (`AdaptivePolicy.counters_at`), stored so that they can be
    read without the model. 0 without meta mode, and for runs created before this was stored."""


@dataclass(frozen=True, kw_only=True)
class StoredRun(NewRun):
    """A run as stored."""

    key: int
    """The store's own number of the run."""
    create_time: float
    """Seconds since the epoch, UTC."""
    update_time: float
    """When its last observations were stored, in seconds since the epoch, UTC."""

    @property
    def status(self) -> int:
        """Its `RunStatus`."""
        return int(self.snapshot.status)


class RunKey(Protocol):
    """The key of a stored run: all that is needed to delete or replace it, even if the rest is damaged."""

    @property
    def run_id(self) -> str:
        """Its full name."""
        ...

    @property
    def key(self) -> int:
        """The store's own number of it."""
        ...

    @property
    def shard(self) -> int:
        """The run's shard, whose owner writes the run."""
        ...

    @property
    def status(self) -> int:
        """Its `RunStatus`."""
        ...

    @property
    def feeder(self) -> str:
        """The id of the process that sends its observations; "" if it is not known."""
        ...


@dataclass(frozen=True)
class RunUpdates:
    """New observations of k runs of one policy, and the runs after them, in columns."""

    answers: Table
    """The answers of one run after another, each in the order of its steps, (n,) of `ANSWERED`."""
    bounds: npt.NDArray[np.intp]
    """The position of each run's first answer, and the end of the last run, (k + 1,)."""
    records: Records
    """The records of the runs after these answers, (k,) of `RECORD`."""
    states: States
    """The states of the runs after these answers, (k, state_size)."""
    applied: Sequence[AppliedUpdate] = ()
    """The meta updates of the runs, in order."""
    checkpoints: WeightCheckpoints | None = None
    """The adapted weights to store, of some of the runs."""
    extras: SparseExtras = NO_EXTRAS
    """The signals and validation losses that came with the answers, by position."""

    def parts(self, size: int) -> Iterator[RunUpdates]:
        """Yield the answers and runs in parts of `size` runs, without updates and checkpoints, as views."""
        for start in range(0, len(self.records), size):
            bounds = self.bounds[start : start + size + 1]
            yield RunUpdates(
                self.answers[bounds[0] : bounds[-1]],
                bounds - bounds[0],
                self.records[start : start + size],
                self.states[start : start + size],
                extras=self.extras.cut(bounds[0], bounds[-1] - bounds[0]),
            )


@dataclass(frozen=True)
class StoredNetwork:
    """A stored checkpoint of a run's adapted weights."""

    snapshot: RunSnapshot
    """The run at the checkpoint."""
    updates: int
    """The number of its meta updates until then."""
    data: bytes
    """The weights, for `codec.unpack_network`."""


@dataclass(frozen=True)
class RememberedTask:
    """A task of which something is remembered."""

    name: str
    """Its name, as the tenant gave it."""
    runs: int
    """The number of its runs, those under way included."""
    time: float
    """When the last of them ended or was created, in seconds since the epoch, UTC."""


class Store(Protocol):
    """Runs and their records. Every method is one transaction.

    Raises:
        AdvisorError: with `Reason.STORE`, the store cannot be read or written; with `Reason.DAMAGED`, what it
            holds of a run is damaged; with `Reason.STORE_NEWER`, a newer version of mlrs wrote it.
    """

    def create(
        self,
        new: Sequence[NewRun],
        dropped: Sequence[RunKey] = (),
        ended: Sequence[tuple[RunKey, PastRun]] = (),
    ) -> list[StoredRun]:
        """Store new runs, all or none, and return them in their order.

        With them, runs are deleted whose ids new ones have; `ended` says how those of them ended that are
        remembered. The ids of the new runs must differ and not be
        taken by others: `Reason.RUN_EXISTS`, which names the first that is.
        """
        ...

    def get(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return the runs that exist, by id; any number."""
        ...

    def find(self, run_ids: Sequence[str]) -> dict[str, RunKey]:
        """Return the keys of the runs that exist, by id; nothing else of them is read."""
        ...

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
        """Return a tenant's runs beyond a position, in its order, without those not readable.

        `prefix` is of the ids as the tenant writes them.

        By recency, runs come with the newest `update_time` first, and by descending id where it is the same.
        A run that gets observations while the pages are read moves to the front, which was listed before; so
        all runs newer than `after.newest` come last, by id. Such a run may be listed twice, and none is
        missed.
        """
        ...

    def change_notes(self, run_id: str, change: NoteChange) -> None:
        """Change the tags and the note of a run, which it may be that another daemon owns.

        Raises:
            AdvisorError: there is no such run, or it would have too many tags.
        """
        ...

    def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        ...

    def unfinished_by_shard(self, tenant: str) -> Mapping[int, int]:
        """Return how many runs of a tenant are not finished in each shard that has any."""
        ...

    def append(self, updates: Sequence[RunUpdates]) -> None:
        """Store new observations and meta updates of runs, all or none; idempotent."""
        ...

    def read(self, key: int, first_step: int, limit: int, *, most_chunks: int | None = None) -> Observations:
        """Return a run's record from a step on, at most `limit` steps.

        With `most_chunks`, at most so many of the chunks in which the steps were stored are read, and the
        last of these is returned to its end, also beyond `limit`: that bounds the time of the call. A gap
        before its last step is an error that names the step.
        """
        ...

    def recall(self, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
        """Return the recorded answers to steps of runs, (n,), for keys and steps, (n,) each.

        The reason is 0 where there is none, or a damaged one; `read` raises the error.
        """
        ...

    def pick(self, key: int, steps: Steps) -> Observations:
        """Return what is recorded of a few steps of a run, (n,), ascending; only their chunks are read.

        The reason is 0 where there is none, or a damaged one.
        """
        ...

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of the steps [first_step, first_step + limit), in order."""
        ...

    def last_updates_of(self, key: int, first_step: int, end: int, width: int) -> Sequence[MetaUpdate]:
        """Return the last meta update of each stretch of `width` steps of [first_step, end), in order.

        Stretches that have none are left out; other updates are not read.
        """
        ...

    def last_updates(self, keys: Sequence[int]) -> dict[int, MetaUpdate]:
        """Return the newest meta update of each run, by key, of those that have one that is not damaged."""
        ...

    def network(self, key: int) -> StoredNetwork | None:
        """Return the newest checkpoint of a run's adapted weights, if any."""
        ...

    def search(self, key: int) -> tuple[int, RecordedSearch] | None:
        """Return the number, from 1, and the content of a run's newest search, if it began one."""
        ...

    def put_search(
        self, run: StoredRun, attempt: int, search: RecordedSearch, settled: NewRun | None = None
    ) -> None:
        """Store a search with its trials so far; idempotent.

        If `settled` is given, the run, which has no observation yet, becomes that one in the same
        transaction, with another config and perhaps another model or schedule.
        """
        ...

    def complete(self, run: StoredRun) -> None:
        """Replace the config, and the state, of a run that has no observation yet."""
        ...

    def resize(self, run: StoredRun, world_size: int, event: RunEvent | None = None) -> None:
        """Set the number of a run's ranks, and record the event, if one is given."""
        ...

    def set_feeder(
        self, taken: Sequence[StoredRun], feeder: str, events: Sequence[tuple[RunKey, RunEvent | None]] = ()
    ) -> None:
        """Set the feeder of some runs, and record events of these, all or none."""
        ...

    def add_events(self, events: Sequence[tuple[RunKey, RunEvent | None]]) -> None:
        """Record events of runs, all or none; a run keeps its newest 1000.

        At most one of each run is of a fallback. If it began where the run's newest fallback did, it replaces
        that one's count.
        """
        ...

    def run_events(self, key: int, after: int) -> Sequence[RecordedEvent]:
        """Return the events of a run beyond a number, in order."""
        ...

    def finish(self, going: Sequence[StoredRun], ended: Sequence[tuple[StoredRun, PastRun]] = ()) -> None:
        """Mark some runs as finished, all or none, and store how runs ended, for the memory of their tasks.

        What was forgotten meanwhile stays forgotten.
        """
        ...

    def past_run(self, run: StoredRun) -> PastRun | None:
        """Return how a run ended, if that is remembered."""
        ...

    def past_runs(self, task: str, limit: int, family: str | None = None) -> Sequence[PastRun | StoredRun]:
        """Return the runs of a task by its full name, the newest first; those under way as they are stored.

        At most `limit` of those that ended: with a family, of those that say something about this kind of
        optimizer. Runs of which nothing can be read are left out.
        """
        ...

    def silent(self, *, before: float, shards: Collection[int] | None, limit: int) -> Sequence[StoredRun]:
        """Return runs that tasks wait for and that were last observed before a time, the least recent first.

        They are of the given shards, or of any.
        """
        ...

    def tasks(self, tenant: str, *, after: str, limit: int) -> Sequence[RememberedTask]:
        """Return a tenant's tasks of which something is remembered, by name, from beyond `after` on."""
        ...

    def task(self, task: str) -> RememberedTask | None:
        """Return a task by its full name, if anything is remembered of it."""
        ...

    def forget(self, task: str) -> int:
        """Forget the runs of a task by its full name, also those under way; return how many there were."""
        ...

    def rewind(self, run: StoredRun, snapshot: RunSnapshot, event: RunEvent | None = None) -> None:
        """Rewind a run to a snapshot: drop its record and its meta updates from `snapshot.next_step` on.

        A checkpoint of its adapted weights that is newer is dropped, too, and how it ended. The event
        is recorded, if one is given.
        """
        ...

    def loose(
        self, *, at_least: int, before: float, shards: Collection[int] | None, limit: int
    ) -> Sequence[StoredRun]:
        """Return inactive runs with at least so many chunks to merge, the least recent first.

        They are finished, or were last observed before a time, and are of the given shards, or of any. Runs
        that cannot be read are left out.
        """
        ...

    def merge(self, run: StoredRun, first_step: int = 0) -> int | None:
        """Merge small chunks of a run into a large one; return the first step of the next, if any.

        The record reads the same before and after. A chunk must begin at `first_step`.
        """
        ...

    def delete(self, run: RunKey, ended: PastRun | None = None) -> None:
        """Delete a run and its record; `ended` says how it ended, if that is remembered."""
        ...

    def model_index(self, known: Index) -> Index:
        """Return the names and aliases of models; `known` itself, if they are unchanged."""
        ...

    def change_models(self, change: Callable[[Index], Index], files: Mapping[str, bytes]) -> Index:
        """Store files of models, by the digest of their content, and change the index; return it.

        Concurrent changes are serialized. Nothing is written if `change` raises.
        """
        ...

    def models(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return the files of models that exist, by digest."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...
