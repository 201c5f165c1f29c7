"""A run made again from what is stored, by the code that first made it.

A replay goes from the beginning, or from the newest network that is stored of a run in meta mode, through
losses and meta updates to some step. It is long work, for another thread than the event loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Protocol, TypeVar, final

import numpy as np
import structlog

from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy, States
from mlrs_server.domain.extras import NO_EXTRAS, SparseExtras
from mlrs_server.domain.ledger import ADAPTED, DIVERGED_AFTER, RunStatus
from mlrs_server.domain.observations import Entries
from mlrs_server.domain.run_snapshot import RunSnapshot, first_snapshot
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import DamagedError, draining, record_lacking
from mlrs_server.live.arrays import RunGroup, adaptive
from mlrs_server.storage import Observations, StoredNetwork, StoredRun
from mlrs_server.storage.chunks import NO_RECORD
from mlrs_server.storage.codec import unpack_network

log = structlog.get_logger()

T = TypeVar("T")

PAGE = 8192
"""Steps read from the store at a time."""
PAGE_CHUNKS = 512
"""The most chunks of a record that are read at a time: those of an active run may be of one step each."""


class Replay:
    """Recomputes a run, from its beginning or from where it was at some time."""

    def __init__(
        self,
        policy: Policy,
        config: RunConfig,
        start: RunSnapshot | None = None,
        network: States | None = None,
    ) -> None:
        """Begin before the first step, or at a snapshot, with the network of then, (network_size,)."""
        start = start or first_snapshot(policy)
        self._group = RunGroup(0, "", policy.background())
        self._row = self._group.reserve()
        self._group.put(self._row, "", 0, config, start, network=network)
        self._handle = self._group.records["handle"][self._row]
        self._next_step = start.next_step

    def feed(
        self, losses: Floats, updates: Sequence[MetaUpdate] = (), extras: SparseExtras = NO_EXTRAS
    ) -> Floats:
        """Take the next losses, (n,); return their learning rates, as first advised, (n,).

        Args:
            losses: of the next steps.
            updates: the meta updates of these steps, in their order; and before them that of the step before,
                if it is not in yet.
            extras: what came with these losses.
        """
        first = start = self._next_step
        end, lrs = first + len(losses), [np.empty(0)]
        for update in updates:
            at, count = start - first, update.step + 1 - start
            lrs.append(self._observe(losses[at : at + count], extras.cut(at, count)))
            self._group.adapt(self._row, update.alignment, update.validation_loss)
            self._group.meta.take()
            start = update.step + 1
        if start < end:
            lrs.append(self._observe(losses[start - first :], extras.cut(start - first, end - start)))
        return np.concatenate(lrs)

    def _observe(self, losses: Floats, extras: SparseExtras) -> Floats:
        """Take losses; return their learning rates."""
        if not len(losses):
            return losses
        steps = np.arange(self._next_step, self._next_step + len(losses))
        self._next_step += len(losses)
        entries = Entries.of(np.full(len(losses), self._handle), steps, losses)
        entries.extras = extras.dense(len(losses))
        self._group.answer(entries)
        self._group.log.take()
        self._group.extras_log.take()
        return entries.lrs.copy()

    def snapshot(self) -> RunSnapshot:
        """Return the run after what was fed so far."""
        return self._group.snapshot(self._row)

    def network(self) -> States:
        """Return its network, (network_size,)."""
        network: States = self._group.networks[self._row].copy()
        return network


# ------------------------------------------------------------------------------ reading a store


class Reading(Protocol):
    """What a replay asks of a store, each read one transaction: see `Store`."""

    def network(self, key: int) -> StoredNetwork | None:
        """Return the network of a run that was stored last, if any."""
        ...

    def read(self, key: int, first_step: int, limit: int, *, most_chunks: int | None = None) -> Observations:
        """Return a run's record from a step on, as `Store.read` does."""
        ...

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of so many steps from a step on, in their order."""
        ...


@final
@dataclass(frozen=True)
class StoreThreadReading:
    """Reads on the store's one thread for a replay on another, so that flushes go on between the reads."""

    store: Reading
    executor: Executor
    """The store's thread."""
    cancelled: Event = field(default_factory=Event)
    """Set once nobody waits for the replay: it reads nothing after that, as the store may close."""

    def network(self, key: int) -> StoredNetwork | None:
        """Return the network of a run that was stored last, if any."""
        return self._ask(lambda: self.store.network(key))

    def read(self, key: int, first_step: int, limit: int, *, most_chunks: int | None = None) -> Observations:
        """Return a run's record from a step on, as `Store.read` does."""
        return self._ask(lambda: self.store.read(key, first_step, limit, most_chunks=most_chunks))

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of so many steps from a step on, in their order."""
        return self._ask(lambda: self.store.read_updates(key, first_step, limit))

    def _ask(self, read: Callable[[], T]) -> T:
        def read_unless_cancelled() -> T:
            if self.cancelled.is_set():
                raise draining()
            return read()

        return self.executor.submit(read_unless_cancelled).result()


@dataclass(frozen=True)
class ReplayedRun:
    """A run as it was before some step."""

    snapshot: RunSnapshot
    network: States
    """(network_size,); empty without meta mode."""
    network_step: int
    """The step before which its network was stored last, 0 if never."""
    updates_since: int
    """How many meta updates it had since."""
    network_damaged: bool = False
    """Whether the stored network is damaged, so that one is to be stored again."""


def replay_stored(
    store: Reading, run: StoredRun, policy: Policy, before_step: int | None = None
) -> ReplayedRun:
    """Return a stored run as it was before a step, by default its next.

    A stored network that is damaged is made again from the whole record, which must give every learning rate
    and the run's state bit for bit: nothing else tells whether the network is the one that was lost.

    Raises:
        AdvisorError: the store cannot be read, or the run's record is damaged or lacks steps.
    """
    end = run.snapshot.next_step if before_step is None else before_step
    try:
        start = stored_network(store, run, policy, end)
    except DamagedError as damage:
        return _replayed_without_network(store, run, policy, before_step, damage)
    replayed, same = replayed_from(store, run, policy, start, before_step)
    if not same:
        log.warning("replay_differs", run_id=run.run_id, from_step=replayed.network_step)
    return replayed


def stored_network(
    store: Reading, run: StoredRun, policy: Policy, end: int
) -> tuple[RunSnapshot, States] | None:
    """Return the network of a run that was stored last, (network_size,), and the run then.

    Returns `None` where there is none, or only one that belongs to a step after `end`.

    Raises:
        AdvisorError: the store cannot be read, or what it holds is damaged.
    """
    kept = store.network(run.key) if run.config.meta is not None else None
    if kept is None or kept.snapshot.next_step > end:
        return None
    if len(kept.snapshot.state) != policy.state_size:
        raise DamagedError(
            f"the state beside the stored network of run {run.run_id!r} does not fit its model"
        )
    return kept.snapshot, unpack_network(kept.data, adaptive(policy).first_network(), run.run_id)


def replayed_from(
    store: Reading,
    run: StoredRun,
    policy: Policy,
    kept: tuple[RunSnapshot, States] | None,
    before_step: int | None,
) -> tuple[ReplayedRun, bool]:
    """Return a run as it was before a step, by default its next, from a network or from its beginning.

    Also return whether the replay gives the record bit for bit, and before the next step the run's state.
    """
    start, network = (_unfinished(kept[0]), kept[1]) if kept else (None, None)
    replay = Replay(policy, run.config, start, network)
    first = 0 if start is None else start.next_step
    end = run.snapshot.next_step if before_step is None else before_step
    count, same = 0, True
    for record, updates in _record_pages(store, run, first, end, adapted=_is_adapted(start)):
        same &= replay.feed(record.losses, updates, record.extras).tobytes() == record.lrs.tobytes()
        count += len(updates)
    replayed = ReplayedRun(replay.snapshot(), replay.network(), first, count)
    if before_step is None:
        same &= replayed.snapshot.state.tobytes() == run.snapshot.state.tobytes()
    return replayed, same


def _replayed_without_network(
    store: Reading, run: StoredRun, policy: Policy, before_step: int | None, damage: DamagedError
) -> ReplayedRun:
    """Return a run whose stored network is damaged, made again from its whole record."""
    try:
        replayed, same = replayed_from(store, run, policy, None, before_step)
        problem = (
            "replayed from the start it gives other learning rates than were recorded: meta updates are "
            "missing, or another version of mlrs made them"
        )
    except DamagedError as error:
        same, problem = False, str(error).partition("; ")[0]
    if not same:
        raise DamagedError(
            f"the stored network of run {run.run_id!r} is damaged, and its record cannot make it again "
            f"({problem}); restore the store from a backup, or delete the run (`mlrs runs delete`) and train "
            "it anew"
        ) from damage
    at = replayed.snapshot.next_step
    log.warning("network_damaged", run_id=run.run_id, problem=str(damage), replayed=at)
    return replace(replayed, network_damaged=True)


def _record_pages(
    store: Reading, run: StoredRun, first: int, end: int, *, adapted: bool
) -> Iterator[tuple[Observations, Sequence[MetaUpdate]]]:
    """Yield a run's record of [first, end) in pages, each with its updates, for `Replay.feed`.

    A page ends where a chunk does, so that none is read twice, whatever its size.

    With `adapted`, the update of the step before the first is in already.
    """
    before = first if adapted or not first else first - 1
    in_meta_mode = run.config.meta is not None
    while True:
        record, left = NO_RECORD, max(end - first, 0)
        if left:
            record = store.read(run.key, first, min(PAGE, left), most_chunks=PAGE_CHUNKS).cut(0, left)
            if not len(record):
                raise record_lacking(run.run_id, first)
        first += len(record)
        yield record, store.read_updates(run.key, before, first - before) if in_meta_mode else ()
        before = first
        if first >= end:
            return


def _unfinished(snapshot: RunSnapshot) -> RunSnapshot:
    """Return a snapshot of a run that takes observations, though it may be finished by now."""
    diverged = snapshot.bad_losses >= DIVERGED_AFTER
    return replace(snapshot, status=RunStatus.DIVERGED if diverged else RunStatus.ACTIVE)


def _is_adapted(snapshot: RunSnapshot | None) -> bool:
    return snapshot is not None and bool(snapshot.last_reason & ADAPTED)
