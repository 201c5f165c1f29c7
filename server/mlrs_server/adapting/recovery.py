"""What a run in meta mode has learnt, made again from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from threading import Event
from typing import Protocol, TypeVar, final

import structlog

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.policy import States
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.errors import DamagedError, draining, record_lacking
from mlrs_server.ledger import ADAPTED, DIVERGED_AFTER, RunStatus
from mlrs_server.replay import Replay
from mlrs_server.runs import RunSnapshot
from mlrs_server.store import Observations, StoredNetwork, StoredRun
from mlrs_server.store.chunks import NO_RECORD
from mlrs_server.store.codec import unpack_network

log = structlog.get_logger()

T = TypeVar("T")

PAGE = 8192
"""Steps read from the store at a time."""


class Reading(Protocol):
    """What a recovery asks of a store, each read one transaction: see `Store`."""

    def network(self, key: int) -> StoredNetwork | None:
        """Return the network of a run that was stored last, if any."""
        ...

    def read(self, key: int, first_step: int, limit: int) -> Observations:
        """Return a run's record from a step on, at most `limit` steps."""
        ...

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of so many steps from a step on, in their order."""
        ...


@final
@dataclass(frozen=True)
class ReadingAside:
    """Reads on the store's one thread for a recovery on another, so that flushes go on between the reads."""

    store: Reading
    executor: Executor
    """The store's thread."""
    over: Event = field(default_factory=Event)
    """Set once nobody waits for the recovery: it reads nothing after that, as the store may close."""

    def network(self, key: int) -> StoredNetwork | None:
        """Return the network of a run that was stored last, if any."""
        return self._ask(lambda: self.store.network(key))

    def read(self, key: int, first_step: int, limit: int) -> Observations:
        """Return a run's record from a step on, at most `limit` steps."""
        return self._ask(lambda: self.store.read(key, first_step, limit))

    def read_updates(self, key: int, first_step: int, limit: int) -> Sequence[MetaUpdate]:
        """Return a run's meta updates of so many steps from a step on, in their order."""
        return self._ask(lambda: self.store.read_updates(key, first_step, limit))

    def _ask(self, read: Callable[[], T]) -> T:
        """Read on the store's thread, and wait for it."""

        def unless_over() -> T:
            if self.over.is_set():
                raise draining()
            return read()

        return self.executor.submit(unless_over).result()


@dataclass(frozen=True)
class Learnt:
    """A run in meta mode, as it was before some step."""

    snapshot: RunSnapshot
    network: States
    """(network_size,)."""
    kept_at: int
    """The step before which its network was stored last, 0 if never ..."""
    since: int
    """... and how many updates it had since."""
    lost: bool = False
    """Whether the network that is stored is damaged, so that one is to be stored again."""


def recovered(store: Reading, run: StoredRun, policy: AdaptivePolicy, step: int | None = None) -> Learnt:
    """Return what a run had learnt before a step, by default its next; reads the store, and takes a while.

    A stored network that is damaged is made again of the whole record, which must give every learning rate
    and the run's state bit for bit: nothing else tells whether the network is the one that was lost.

    Raises:
        AdvisorError: the store cannot be read, or the run's record is damaged or lacks steps.
    """
    end = run.snapshot.next_step if step is None else step
    try:
        kept = kept_network(store, run, policy, end)
    except DamagedError as damage:
        return _made_again(store, run, policy, step, damage)
    learnt, same = replayed(store, run, policy, kept, step)
    if not same:
        log.warning("replay_differs", run_id=run.run_id, from_step=learnt.kept_at)
    return learnt


def kept_network(
    store: Reading, run: StoredRun, policy: AdaptivePolicy, end: int
) -> tuple[RunSnapshot, States] | None:
    """Return the network of a run that was stored last, (network_size,), and the run then.

    Returns `None` where there is none, or only one of after step `end` was next.

    Raises:
        AdvisorError: the store cannot be read, or what it holds is damaged.
    """
    kept = store.network(run.key)
    if kept is None or kept.snapshot.next_step > end:
        return None
    if len(kept.snapshot.state) != policy.state_size:
        raise DamagedError(
            f"the state beside the stored network of run {run.run_id!r} does not fit its model"
        )
    return kept.snapshot, unpack_network(kept.data, policy.first_network(), run.run_id)


def replayed(
    store: Reading,
    run: StoredRun,
    policy: AdaptivePolicy,
    kept: tuple[RunSnapshot, States] | None,
    step: int | None,
) -> tuple[Learnt, bool]:
    """Return what a run had learnt before a step, from a network or the beginning on.

    Also whether that gives the record bit for bit; and before the next step, by `None`, the run's state.
    """
    start, network = (_going(kept[0]), kept[1]) if kept else (None, None)
    replay = Replay(policy, run.config, start, network)
    first = 0 if start is None else start.next_step
    end = run.snapshot.next_step if step is None else step
    since, same = 0, True
    for record, updates in stretches(store, run, first, end, adapted=_is_adapted(start)):
        same &= replay.feed(record.losses, updates).tobytes() == record.lrs.tobytes()
        since += len(updates)
    learnt = Learnt(replay.snapshot(), replay.network(), first, since)
    if step is None:
        same &= learnt.snapshot.state.tobytes() == run.snapshot.state.tobytes()
    return learnt, same


def _made_again(
    store: Reading, run: StoredRun, policy: AdaptivePolicy, step: int | None, damage: DamagedError
) -> Learnt:
    """Return what a run had learnt whose stored network is damaged, made again of its whole record.

    Raises:
        AdvisorError: as `recovered`; the record does not give it, which says what to do.
    """
    try:
        learnt, same = replayed(store, run, policy, None, step)
    except DamagedError as error:
        raise _beyond_repair(run.run_id, str(error).partition("; ")[0]) from damage
    if not same:
        raise _beyond_repair(
            run.run_id,
            "replayed from the start it gives other learning rates than were recorded: meta updates are "
            "missing, or another version of mlrs made them",
        ) from damage
    log.warning("network_damaged", run_id=run.run_id, problem=str(damage), replayed=learnt.snapshot.next_step)
    return replace(learnt, lost=True)


def _beyond_repair(run_id: str, problem: str) -> DamagedError:
    return DamagedError(
        f"the stored network of run {run_id!r} is damaged, and its record cannot make it again ({problem}); "
        "restore the store from a backup, or delete the run (`mlrs runs delete`) and train it anew"
    )


def stretches(
    store: Reading, run: StoredRun, first: int, end: int, *, adapted: bool = False
) -> Iterator[tuple[Observations, list[MetaUpdate]]]:
    """Yield a run's record of [first, end) in pages, each with its updates, for `Replay.feed`.

    Args:
        store: to read.
        run: whose.
        first: the first step.
        end: the step after the last.
        adapted: whether the update of the step before the first, if there is one, is in already.
    """
    before = first if adapted or not first else first - 1
    starts = [*range(first, end, PAGE), end]
    for start, stop in pairwise(starts) if first < end else [(first, first)]:
        record = store.read(run.key, start, stop - start) if stop > start else NO_RECORD
        if len(record) < stop - start:
            raise record_lacking(run.run_id, start + len(record))
        yield record, list(store.read_updates(run.key, before, stop - before))
        before = stop


def _going(snapshot: RunSnapshot) -> RunSnapshot:
    """Return a snapshot of a run that goes on, which it may have ceased to do since."""
    diverged = snapshot.bad_losses >= DIVERGED_AFTER
    return replace(snapshot, status=RunStatus.DIVERGED if diverged else RunStatus.ACTIVE)


def _is_adapted(snapshot: RunSnapshot | None) -> bool:
    return snapshot is not None and bool(snapshot.last_reason & ADAPTED)
