"""Searches for the learning rate to begin a run with: the trials are recorded before its step 0."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from mlrs_core.config import FoundRate, Recalled, RunConfig, ScheduleKind
from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.search import Found, SearchSetup, Trial
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.searches import VERSION, RecordedSearch, check_start
from mlrs_server.domain.tails import tail
from mlrs_server.errors import AdvisorError, finished_run, invalid_field, no_search, run_begun
from mlrs_server.failpoints import reach
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.policies import new_run
from mlrs_server.live.stored_runs import StoredRuns, required
from mlrs_server.models.catalog import ModelCatalog, ModelsNow
from mlrs_server.runs.changes import RunChanges
from mlrs_server.storage import NewRun, Store, StoredRun

log = structlog.get_logger()

AFTER_SEARCH = ScheduleKind.WSD
"""What a run follows after a search instead of a model that would go to a rate of its own: the schedule that
ends best there. ADR 0024 has the measurements."""


SEARCHED = "a search has found the learning rate, in place of what is remembered"
"""What a run says of the memory after a search that was made although that had decided."""


@dataclass(frozen=True)
class SearchView:
    """A search as callers see it."""

    attempt: int
    """How many searches the run has begun, this one included."""
    search: RecordedSearch
    next: Trial | Found


@dataclass(frozen=True, kw_only=True)
class Report:
    """A call of a client that searches."""

    run_id: str
    """The run's full name (`tenancy.py`)."""
    start: str
    """What the trials are made from and on, as the client names it."""
    result: tuple[int, float, int] | None = None
    """The number of the trial that was made, its loss, and its steps."""
    keep_policy: bool = False
    """Whether the run keeps its model or its schedule."""
    charge_steps: bool = False
    """Whether the trials' steps are part of the horizon."""


class RunSearches:
    """The searches of runs. Used from one event loop."""

    def __init__(
        self, live: LiveRuns, stored: StoredRuns, catalog: ModelCatalog, changes: RunChanges
    ) -> None:
        """Search for runs of `live` and `stored`; `catalog` has their models."""
        self._live = live
        self._stored = stored
        self._catalog = catalog
        self._changes = changes

    async def get(self, run_id: str) -> SearchView:
        """Return the newest search of a run.

        Raises:
            AdvisorError: there is no such run, or it had no search.
        """
        run = await self._stored.get(run_id)
        found = await self._stored.in_store(lambda store: store.search(run.key))
        if found is None:
            raise no_search(run_id)
        attempt, search = found
        return SearchView(attempt, search, search.next())

    async def report(self, report: Report) -> SearchView:
        """Take the result of a trial, if there is one, and say what comes next. All of it is stored before.

        A result that was taken before changes nothing. A start other than the last one's, and rules of
        another version, begin the search anew.

        Raises:
            AdvisorError: there is no such run, it is finished or has observations; the result is of another
                trial; or the store fails.
        """
        check_start(report.start)
        return await self._changes.to_the_end(self._report(report))

    async def _report(self, report: Report) -> SearchView:
        run_id = report.run_id
        async with self._live.lock(run_id), self._stored.acquired([run_id]) as runs:
            run = required(runs, run_id)
            attempt, before = await self._stored.in_store(lambda store: store.search(run.key)) or (0, None)
            self._check_not_begun(run)  # after the store was read: the run takes observations meanwhile
            if before is None or (before.start, before.version) != (report.start, VERSION):
                before, attempt, search = None, attempt + 1, _begun(run, report)
            else:
                search = before if report.result is None else before.with_result(*report.result)
            following = search.next()
            if search is not before:
                keeps_policy = _keeps_policy(run.config, search)
                if isinstance(following, Found) and not keeps_policy:
                    keeps_policy = await asyncio.to_thread(self._begins_at_start, run)
                    self._check_not_begun(run)  # it may have meanwhile
                await self._store(run, attempt, search, following, keeps_policy=keeps_policy)
            if before is None:
                log.info("search_begun", run_id=run_id, attempt=attempt)
            return SearchView(attempt, search, following)

    def _check_not_begun(self, run: StoredRun) -> None:
        """Check that a run has no observation and is not finished."""
        if self._live.status(run) == RunStatus.FINISHED:
            raise finished_run(run.run_id)
        if (step := self._live.next_step(run)) > 0:
            raise run_begun(run.run_id, step)

    async def _store(
        self,
        run: StoredRun,
        attempt: int,
        search: RecordedSearch,
        following: Trial | Found,
        *,
        keeps_policy: bool,
    ) -> None:
        """Store a search, and the run that it leads to if it is at its end."""
        reach("search.store")
        if isinstance(following, Trial):
            await self._stored.in_store(lambda store: store.put_search(run, attempt, search))
            return
        settled = self._settled(run, search, following, keeps_policy=keeps_policy)
        await self._settle(run, attempt, search, settled)
        log.info(
            "search_ended",
            run_id=run.run_id,
            learning_rate=following.learning_rate,
            octaves=round(following.octaves, 2),
            trials=len(search.results),
            steps=following.steps,
            policy=settled.model_name,
        )

    async def _settle(self, run: StoredRun, attempt: int, search: RecordedSearch, settled: NewRun) -> None:
        """Store a search at its end, with the run that it leads to, and have that run in memory, too.

        A run that is not in memory stays out: the next call that needs it loads its model first.
        """

        def put(store: Store) -> None:
            store.put_search(run, attempt, search, settled)

        if self._live.find(run.run_id) is None:
            await self._stored.in_store(put)
            reach("search.stored")
            return
        with self._live.reserved_new(settled) as slot:  # it may be served by another policy than before
            with self._live.dropped_if_ambiguous(run.run_id):
                await self._stored.in_store(put)
            reach("search.stored")
            self._live.drop(run.run_id)
            self._live.put(slot, replace(run, **vars(settled)))

    def _settled(self, run: StoredRun, search: RecordedSearch, found: Found, *, keeps_policy: bool) -> NewRun:
        """Return the run that begins with what was found."""
        config = replace(
            run.config,
            found=FoundRate(
                learning_rate=found.learning_rate,
                octaves=found.octaves,
                steps=found.steps,
                charged=search.charge_steps,
            ),
        )
        if config.recalled is not None and config.recalled.decided:  # the search was asked for all the same
            config = replace(config, recalled=Recalled(why=SEARCHED))
        if keeps_policy:
            own = {name: getattr(run, name) for name in NewRun.__dataclass_fields__}
            return NewRun(**{**own, "config": config})
        config = replace(
            config,
            schedule=tail(AFTER_SEARCH, config.after_search().horizon or 1),
            lr_offset=_own_offset(config),
        )
        new = new_run(run.run_id, config, "", ModelsNow(self._catalog, self._catalog.names), task=run.task)
        return replace(new, shard=run.shard, world_size=run.world_size, feeder=run.feeder)

    def _begins_at_start(self, run: StoredRun) -> bool:
        """Return whether the model of a run begins at what a search finds; on any thread but the loop's.

        A model that cannot be read does not: the schedule stands in for it.
        """
        try:
            model = self._catalog.by_digest(run.model_digest, run.model_name).model
        except AdvisorError as error:
            log.warning("model_unreadable", run_id=run.run_id, problem=str(error))
            return False
        return model.architecture.begins_at_start


def _own_offset(config: RunConfig) -> float | None:
    """Return the offset that the caller gave, without one that the memory decided for a model."""
    return None if config.recalled is not None else config.lr_offset


def _keeps_policy(config: RunConfig, search: RecordedSearch) -> bool:
    """Return whether a run keeps what serves it; no schedule could replace it without a horizon."""
    return (
        search.keep_policy or config.schedule is not None or config.meta is not None or config.horizon is None
    )


def _begun(run: StoredRun, report: Report) -> RecordedSearch:
    """Return the search that a run begins.

    Raises:
        AdvisorError: the call has a result, and so no trial of this search can have been asked for.
    """
    if report.result is not None:
        raise invalid_field("result", "is of another search; ask without a result which trial to make")
    config = run.config
    base_lr = config.schedule and config.schedule.base_lr
    initial_lr = base_lr or config.initial_lr
    setup = SearchSetup(
        horizon=config.horizon,
        optimizer=config.optimizer,
        momentum=config.momentum,
        initial_lr=None if initial_lr is None else _bounded(initial_lr),
    )
    return RecordedSearch(
        start=report.start,
        setup=setup,
        keep_policy=report.keep_policy,
        charge_steps=report.charge_steps,
        min_lr=MIN_BASE_LR if config.min_lr is None else _bounded(config.min_lr),
        max_lr=MAX_BASE_LR if config.max_lr is None else _bounded(config.max_lr),
    )


def _bounded(learning_rate: float) -> float:
    """Return a learning rate that a schedule can begin with."""
    return min(max(learning_rate, MIN_BASE_LR), MAX_BASE_LR)
