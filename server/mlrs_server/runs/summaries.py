"""Summaries of records, read in bounded parts: neither flushes nor the event loop wait for long.

What is read is durable. Nothing is flushed, and every replica can answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import structlog

from mlrs_core.policy import Floats, Steps
from mlrs_server.domain.run_events import RecordedEvent, RunEventKind
from mlrs_server.domain.summaries import Buckets, Summary, width_for
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import DamagedError, record_lacking
from mlrs_server.live.replay import PAGE, PAGE_CHUNKS
from mlrs_server.live.stored_runs import StoredRuns, required
from mlrs_server.live.views import RunView
from mlrs_server.runs.open_request import check_batch
from mlrs_server.storage import Store, StoredRun
from mlrs_server.tenancy import check_full_name

log = structlog.get_logger()

MOST_BUCKETS = 4096
"""The most buckets of a summary."""
MOST_STEPS = 2**20
"""The most steps that a call reads: a multiple of every width."""
PAGE_BUCKETS = 512
"""The most buckets whose meta updates are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a record that is asked for."""

    first_step: int = 0
    to_step: int | None = None
    """The step before which it ends; `None`: the end of the record."""
    most_buckets: int = 1000
    """The most buckets, 1 to `MOST_BUCKETS`."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a summary goes on. A client keeps it as a token."""

    width: int
    """The number of steps of a bucket."""
    begin: int
    """The first step of the part's first bucket."""
    next_step: int
    """The first step of the next bucket to read; the last one that was read comes again if it may change."""
    to_step: int | None
    """As in `Part`."""
    event: int
    """The number of the run's newest event that was read."""
    create_time: float
    """When the run was created: another run may have its id by now."""


@dataclass(frozen=True)
class SummarizedRecord:
    """A part of a run's record in buckets."""

    view: RunView
    summary: Summary
    updates: Sequence[MetaUpdate]
    """The last meta update of each bucket that has some."""
    has_more: bool
    """Whether `position` leads to more that is durable already."""
    position: Position


@dataclass(frozen=True)
class Sample:
    """A few steps of a run's record, in columns, (n,) each."""

    run_id: str
    steps: Steps
    losses: Floats
    lrs: Floats


@dataclass(frozen=True)
class _Durable:
    """A run and its newest events, as they are stored."""

    run: StoredRun
    events: Sequence[RecordedEvent]


class RunSummaries:
    """Reads the records of runs in buckets. Used from one event loop."""

    def __init__(self, stored: StoredRuns) -> None:
        """Read runs from `stored`."""
        self._stored = stored

    async def summarize(self, run_id: str, asked: Part | Position) -> SummarizedRecord:
        """Return a part of a run's record in buckets, or its rest, as far as one call goes.

        If the run was rewound since the answer that `asked` is of, the buckets from the step rewound to on
        come again.

        Raises:
            AdvisorError: there is no such run, or its record is damaged or lacks steps.
        """
        check_full_name(run_id)
        most = asked.most_buckets if isinstance(asked, Part) else MOST_BUCKETS
        while True:
            durable = await self._stored.in_store(partial(_durable, run_id, asked))
            at = _position(durable, asked)
            recorded = durable.run.snapshot.next_step
            end = recorded if at.to_step is None else min(at.to_step, recorded)
            stop = max(min(end, at.next_step + min(MOST_STEPS, most * at.width)), at.next_step)
            buckets = Buckets(at.next_step, at.width, -(-(stop - at.next_step) // at.width))
            pages = 0
            while buckets.end < stop and await self._stored.in_store(
                partial(_read_page, durable.run.key, buckets, stop)
            ):
                pages += 1
            updates = await self._updates(durable.run, at, stop)
            if pages > 1 or buckets.end < stop:
                now = await self._stored.in_store(partial(_durable, run_id, at))
                if _is_rewound(durable, now, at):
                    continue
                if buckets.end < stop:
                    raise record_lacking(run_id, buckets.end)
            has_more = stop < end
            (view,) = await self._stored.views([durable.run])
            return SummarizedRecord(
                view, buckets.summary(), updates, has_more, _after(at, stop, has_more=has_more)
            )

    async def sample(self, run_ids: Sequence[str], count: int) -> list[Sample]:
        """Return at most `count` durable steps of each run, evenly spaced, the first and the last among them.

        Runs that do not exist, or cannot be read, are left out; so are steps whose record is damaged.

        Raises:
            AdvisorError: an id is malformed or given twice, or the store fails.
        """
        check_batch("run_ids", run_ids)
        for run_id in run_ids:
            check_full_name(run_id)
        samples = [await self._stored.in_store(partial(_sample, run_id, count)) for run_id in run_ids]
        return [sample for sample in samples if sample is not None]

    async def _updates(self, run: StoredRun, at: Position, stop: int) -> Sequence[MetaUpdate]:
        """Return the last meta update of each bucket that has some, of a run in meta mode."""
        updates = list[MetaUpdate]()
        if run.config.meta is not None:
            stretch = PAGE_BUCKETS * at.width
            for first in range(at.next_step, stop, stretch):
                read = partial(_read_updates, run.key, first, min(first + stretch, stop), at.width)
                updates += await self._stored.in_store(read)
        return updates


def _durable(run_id: str, asked: Part | Position, store: Store) -> _Durable:
    """Return a run, and its events beyond those of a position; all of them if it is of another run."""
    run = required(store.get([run_id]), run_id)
    known = asked.event if isinstance(asked, Position) and asked.create_time == run.create_time else 0
    return _Durable(run, store.run_events(run.key, known))


def _position(durable: _Durable, asked: Part | Position) -> Position:
    """Return where to read from: what a rewind has dropped is read again."""
    run, events = durable.run, durable.events
    newest = events[-1].number if events else 0
    if isinstance(asked, Part):
        end = run.snapshot.next_step if asked.to_step is None else asked.to_step
        width = width_for(asked.first_step, max(end, asked.first_step), asked.most_buckets)
        begin = asked.first_step // width * width
        return Position(
            width=width,
            begin=begin,
            next_step=begin,
            to_step=asked.to_step,
            event=newest,
            create_time=run.create_time,
        )
    if asked.create_time != run.create_time or (events and events[0].number > asked.event + 1):
        step = 0  # it is another run, or events between were dropped
    else:
        step = min([asked.next_step, *_rewound_to(events)])
    return replace(
        asked,
        next_step=max(step // asked.width * asked.width, asked.begin),
        event=newest if asked.create_time != run.create_time else max(newest, asked.event),
        create_time=run.create_time,
    )


def _rewound_to(events: Sequence[RecordedEvent]) -> list[int]:
    return [event.step for event in events if event.kind == RunEventKind.REWOUND]


def _is_rewound(before: _Durable, now: _Durable, at: Position) -> bool:
    """Return whether a run was rewound, or replaced by another, while its record was read."""
    return bool(
        now.run.key != before.run.key
        or now.run.snapshot.next_step < before.run.snapshot.next_step
        or _rewound_to([event for event in now.events if event.number > at.event])
    )


def _after(at: Position, stop: int, *, has_more: bool) -> Position:
    """Return where to go on. The last bucket of what is durable may still get steps, or a meta update."""
    if has_more or stop == at.next_step:
        return replace(at, next_step=stop)
    return replace(at, next_step=(stop - 1) // at.width * at.width)


def _sample(run_id: str, count: int, store: Store) -> Sample | None:
    """Return a few steps of a run; `None` if there is none that can be read."""
    try:
        run = store.get([run_id]).get(run_id)
    except DamagedError as damage:
        log.warning("run_unreadable", run_id=run_id, problem=str(damage))
        return None
    if run is None:
        return None
    recorded = run.snapshot.next_step
    steps = np.unique(np.linspace(0, max(recorded - 1, 0), min(count, recorded)).astype(np.int64))
    found = store.pick(run.key, steps)
    there = found.reasons != 0
    return Sample(run_id, steps[there], found.losses[there], found.lrs[there])


def _read_page(key: int, buckets: Buckets, stop: int, store: Store) -> bool:
    """Read some more steps into buckets, and return whether there were any."""
    left = stop - buckets.end
    record = store.read(key, buckets.end, min(PAGE, left), most_chunks=PAGE_CHUNKS).cut(0, left)
    buckets.add(record.losses, record.lrs, record.reasons, record.extras)
    return len(record) > 0


def _read_updates(key: int, first_step: int, end: int, width: int, store: Store) -> Sequence[MetaUpdate]:
    return store.last_updates_of(key, first_step, end, width)
