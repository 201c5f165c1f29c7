"""What a store of runs must offer. Stores are synchronous and used from one thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, States, Steps
from mlrs_server.domain.entries import Bytes, Table
from mlrs_server.domain.ledger import Records, RunStatus
from mlrs_server.domain.model_index import Index
from mlrs_server.domain.run_snapshot import RunSnapshot
from mlrs_server.domain.updates import AppliedUpdate, MetaUpdate, WeightCheckpoints


@dataclass(frozen=True)
class Observations:
    """A stretch of a run's record, step by step, all (n,)."""

    losses: Floats
    lrs: Floats
    reasons: Bytes
    """`AdviceReason`: fresh or held."""
    updates: Sequence[MetaUpdate] = ()
    """Meta updates that came to light with it, where they are asked for, in their order."""

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.losses)

    def cut(self, start: int, count: int) -> Observations:
        """Return so many steps from one on, fewer where it ends, without its updates; views."""
        part = slice(start, start + count)
        return Observations(self.losses[part], self.lrs[part], self.reasons[part])


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run to create."""

    run_id: str
    """Its full name (`names.py`)."""
    shard: int
    """That of its group, or of its id (`shards`): who owns the shard writes the run."""
    config: RunConfig
    model_name: str
    model_digest: str
    snapshot: RunSnapshot
    world_size: int = 0
    """The number of its ranks; 0 without `config.ranks`."""
    task: str = ""
    """What is trained, in the words of the run's tenant; "" is the run's id."""
    feeder: str = ""
    """The id of the process that sends its observations; "" is not known."""
    counters_at: int = 0
    """Where the counters of meta mode begin in its state (`AdaptivePolicy.counters_at`): it is read without
    its model. 0: it is not in meta mode, or was created before this was kept."""


@dataclass(frozen=True, kw_only=True)
class StoredRun(NewRun):
    """A run as stored."""

    key: int
    """The store's own number of the run."""
    create_time: float
    """Seconds since the epoch, UTC."""
    update_time: float
    """When its last observations were stored, likewise."""

    @property
    def status(self) -> int:
        """Its `RunStatus`."""
        return int(self.snapshot.status)


@dataclass(frozen=True)
class Recency:
    """Where a list of runs by recency stands; as made without arguments, at its beginning."""

    newest: float = math.inf
    """The newest `update_time` that a run had when the first page was read."""
    update_time: float = math.inf
    """That of the last run listed; beyond `newest`, once the runs are listed that moved since."""
    run_id: str = ""
    """The last run listed, as the tenant writes it."""


class RunKey(Protocol):
    """What a store knows a run by: all that is needed to delete or replace it, whatever else is damaged."""

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
        """Who owns the shard writes it."""
        ...

    @property
    def status(self) -> int:
        """Its `RunStatus`."""
        ...

    @property
    def feeder(self) -> str:
        """The id of the process that sends its observations; "" is not known."""
        ...


@dataclass(frozen=True)
class RunUpdates:
    """New observations of k runs of one policy, and the runs after them; in columns, for thousands."""

    answers: Table
    """(n,) of `ANSWERED`, one run's after another's, each in the order of its steps."""
    bounds: npt.NDArray[np.intp]
    """Where each run's begin, and the end of the last, (k + 1,)."""
    records: Records
    """The runs after them, (k,) of `RECORD`."""
    states: States
    """Likewise, (k, state_size)."""
    applied: Sequence[AppliedUpdate] = ()
    """Meta updates of them, in their order."""
    networks: WeightCheckpoints | None = None
    """Networks of some of them."""

    def parts(self, size: int) -> Iterator[RunUpdates]:
        """Yield the observations and the runs of so many at a time, without the rest; views."""
        for start in range(0, len(self.records), size):
            bounds = self.bounds[start : start + size + 1]
            yield RunUpdates(
                self.answers[bounds[0] : bounds[-1]],
                bounds - bounds[0],
                self.records[start : start + size],
                self.states[start : start + size],
            )


@dataclass(frozen=True)
class StoredNetwork:
    """What a run in meta mode had learnt at some time."""

    snapshot: RunSnapshot
    """The run then."""
    updates: int
    """Its meta updates until then."""
    data: bytes
    """The network, for `codec.unpack_network`."""


class Store(Protocol):
    """Runs and their records. Every method is one transaction.

    Raises:
        AdvisorError: with `Reason.STORE`, the store cannot be read or written; with `Reason.DAMAGED`, what it
            holds of a run is damaged; with `Reason.STORE_NEWER`, a newer version of mlrs wrote it.
    """

    def create(self, new: Sequence[NewRun], dropped: Sequence[RunKey] = ()) -> list[StoredRun]:
        """Store new runs, all or none, and return them in their order.

        With them, runs are deleted whose ids new ones have. The ids of the new runs must differ and not be
        taken by others: `Reason.RUN_EXISTS`, which names the first that is.
        """
        ...

    def get(self, run_ids: Sequence[str]) -> dict[str, StoredRun]:
        """Return runs by id, without those that are not there; any number."""
        ...

    def find(self, run_ids: Sequence[str]) -> dict[str, RunKey]:
        """Return where runs are, by id, without those that are not there; nothing else of them is read."""
        ...

    def list(
        self, *, prefix: str, status: RunStatus | None, after: str, limit: int, tenant: str = ""
    ) -> list[StoredRun]:
        """Return a tenant's runs ordered by id, from the first beyond `after`, without those not readable.

        `prefix` and `after` are ids as the tenant writes them.
        """
        ...

    def list_recent(
        self, *, prefix: str, status: RunStatus | None, after: Recency, limit: int, tenant: str = ""
    ) -> Sequence[StoredRun]:
        """Return a tenant's runs from where a list by recency stands, without those not readable.

        Runs come with the newest `update_time` first, and by id where it is the same. A run that gets
        observations while the pages are read moves to the front, which was listed before; so all runs newer
        than `after.newest` come last, by id. Such a run may be listed twice, and none is missed.
        """
        ...

    def count_unfinished(self, tenant: str) -> int:
        """Return how many runs of a tenant are not finished."""
        ...

    def append(self, updates: Sequence[RunUpdates]) -> None:
        """Store new observations and meta updates of some runs, all or none; twice is once."""
        ...

    def read(self, key: int, first_step: int, limit: int) -> Observations:
        """Return a run's record from a step on, at most `limit` steps.

        A gap before its last step is an error that names the step.
        """
        ...

    def recall(self, keys: npt.NDArray[np.int64], steps: Steps) -> Observations:
        """Return what was answered for steps of runs, in columns, as many as there are keys and steps.

        The reason is 0 where that is not there, or damaged: `read` says what is wrong.
        """
        ...

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of so many steps from a step on, in their order."""
        ...

    def last_updates(self, keys: Sequence[int]) -> dict[int, MetaUpdate]:
        """Return the newest meta updates of runs, by key, without those that have none, or a damaged one."""
        ...

    def network(self, key: int) -> StoredNetwork | None:
        """Return the network of a run that was stored last, if any."""
        ...

    def complete(self, run: StoredRun, config: RunConfig) -> None:
        """Replace the config of a run that has no observation yet."""
        ...

    def resize(self, run: StoredRun, world_size: int) -> None:
        """Set the number of a run's ranks."""
        ...

    def set_feeder(self, taken: Sequence[StoredRun], feeder: str) -> None:
        """Set who sends the observations of some runs, all or none."""
        ...

    def set_status(self, going: Sequence[StoredRun], status: RunStatus) -> None:
        """Set the status of some runs, all or none."""
        ...

    def rewind(self, run: StoredRun, snapshot: RunSnapshot) -> None:
        """Drop a run's record from `snapshot.next_step` on, and put it back to that snapshot.

        Its meta updates of those steps go, and its network if that is of later.
        """
        ...

    def loose(
        self, *, at_least: int, before: float, shards: Collection[int] | None, limit: int
    ) -> Sequence[StoredRun]:
        """Return runs that rest and have so many chunks to merge, the oldest first.

        They are finished, or were last observed before a time; and of these shards, or of any. Those that
        cannot be read are left out.
        """
        ...

    def merge(self, run: StoredRun, first_step: int = 0) -> int | None:
        """Make a large chunk of a run's small ones; return where the next begins, if any does.

        What is read is the same before and after. A chunk begins at `first_step`.
        """
        ...

    def delete(self, run: RunKey) -> None:
        """Delete a run and its record."""
        ...

    def model_index(self, known: Index) -> Index:
        """Return the names and aliases of models; `known` itself, if they are still those."""
        ...

    def change_models(self, change: Callable[[Index], Index], files: Mapping[str, bytes]) -> Index:
        """Keep files of models, by the digest of their content, and change the index; return it.

        Whoever else changes it comes before or after. Nothing is written if the change raises.
        """
        ...

    def models(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return files of models by digest, without those that are not there."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...
