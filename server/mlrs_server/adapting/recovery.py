"""What a run in meta mode has learnt, made again from what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import structlog

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.policy import States
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.errors import record_lacking
from mlrs_server.ledger import ADAPTED, DIVERGED_AFTER, RunStatus
from mlrs_server.replay import Replay
from mlrs_server.runs import RunSnapshot
from mlrs_server.store import Observations, Store, StoredRun
from mlrs_server.store.codec import unpack_network
from mlrs_server.store.records import NO_RECORD

log = structlog.get_logger()

PAGE = 8192
"""Steps read from the store at a time."""


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


def recovered(store: Store, run: StoredRun, policy: AdaptivePolicy, step: int | None = None) -> Learnt:
    """Return what a run had learnt before a step, by default its next; reads the store, and takes a while.

    Raises:
        AdvisorError: the store cannot be read, or the run's record is damaged or lacks steps.
    """
    end = run.snapshot.next_step if step is None else step
    kept = store.network(run.key)
    if kept is not None and kept.snapshot.next_step <= end:
        network = unpack_network(kept.data, policy.first_network(), run.run_id)
        start = _going(kept.snapshot)
        replay = Replay(policy, run.config, start, network)
    else:
        start, replay = None, Replay(policy, run.config)
    first = 0 if start is None else start.next_step
    since = 0
    for record, updates in stretches(store, run, first, end, adapted=_is_adapted(start)):
        if replay.feed(record.losses, updates).tobytes() != record.lrs.tobytes():
            log.warning("replay_differs", run_id=run.run_id, from_step=first)
        since += len(updates)
    learnt = Learnt(replay.snapshot(), replay.network(), first, since)
    if step is None and learnt.snapshot.state.tobytes() != run.snapshot.state.tobytes():
        log.warning("replay_differs", run_id=run.run_id, from_step=first)
    return learnt


def stretches(
    store: Store, run: StoredRun, first: int, end: int, *, adapted: bool = False
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
