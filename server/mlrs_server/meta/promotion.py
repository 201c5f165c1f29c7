"""Which runs a new version of a model is made of, and what they have learnt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import structlog

from mlrs_core.adapting.protocol import Vector
from mlrs_core.config import DEFAULT_META, AdaptScope
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.arrays import adaptive
from mlrs_server.live.live import LiveRuns
from mlrs_server.live.policies import adaptive_policy_of
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.meta.average import Contribution, WeightAverage
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import CatalogModel
from mlrs_server.storage import Store, StoredRun
from mlrs_server.tenancy import bare

log = structlog.get_logger()

PAGE = 256
"""Runs read from the store at a time."""


@dataclass(frozen=True, kw_only=True)
class PromoteRequest:
    """What a new version is to be made of."""

    model: str
    """The model that its runs began with: a name, an alias or a reference."""
    alias: str = ""
    """What to point at the new version; "": nothing."""
    prefix: str = ""
    """Only runs whose ids begin with it, as the tenant writes them."""
    min_updates: int = 1
    """Only runs of so many meta updates."""
    dry_run: bool = False
    """Whether to make nothing."""


@dataclass(frozen=True)
class Promoted:
    """A new version of a model."""

    model: CatalogModel | None
    """It; `None` if none was to be made."""
    named: list[Contribution]
    """What it is made of: the first runs by id."""
    count: int
    """How many runs there are."""
    relative_change: float
    """How far it is from the model, as in `Contribution`."""


@dataclass(frozen=True)
class AdaptedWeights:
    """A run that has learnt."""

    updates: int
    next_step: int
    weights: Vector


class Promotion:
    """Makes new versions of models, one at a time. Used from one event loop, which it keeps free."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, catalog: ModelCatalog) -> None:
        """`live` are the runs in memory, `stored` is the way to the others."""
        self._live = live
        self._stored = stored
        self._catalog = catalog
        self._turn = asyncio.Lock()

    async def promote(self, asked: PromoteRequest, tenant: str) -> Promoted:
        """Make a new version of a model for a tenant, of what its runs have learnt.

        Raises:
            AdvisorError: there is no such model, the alias cannot be one, no run has learnt anything, a run's
                record is damaged, or the store fails.
        """
        parent = await asyncio.to_thread(self._catalog.find, asked.model, tenant)
        if asked.alias:
            self._catalog.names.check_alias(asked.alias, tenant)
        async with self._turn:
            average = await asyncio.to_thread(
                lambda: WeightAverage(parent.model.adaptive_policy(DEFAULT_META))
            )
            await self._live.journal.flush()
            async for run in self._runs(parent, asked, tenant):
                learner = await self._learner(run, average.size, asked.min_updates)
                if learner is not None:
                    told = (bare(run.run_id), learner.updates, learner.next_step, learner.weights)
                    await asyncio.to_thread(average.add, *told)
            if not average.count:
                raise _nothing_adapted(parent, asked)
            if asked.dry_run:
                return Promoted(None, average.named, average.count, average.relative_change())
            await self._live.journal.flush()  # a new version is of nothing that a crash could undo
            made = await asyncio.to_thread(self._added, average, parent, asked, tenant)
        log.info(
            "model_promoted",
            tenant=tenant,
            parent=parent.ref,
            model=made.name,
            digest=made.digest,
            alias=asked.alias,
            runs=average.count,
        )
        return Promoted(made, average.named, average.count, average.relative_change())

    async def _runs(
        self, parent: CatalogModel, asked: PromoteRequest, tenant: str
    ) -> AsyncIterator[StoredRun]:
        """Yield the runs, by id, that go on learning for a model."""
        after = ""
        while True:
            read = partial(_page, prefix=asked.prefix, after=after, tenant=tenant)
            page = await self._stored.in_store(read)
            for run in page:
                meta = run.config.meta
                if meta and meta.scope == AdaptScope.MODEL and run.model_digest == parent.digest:
                    yield run
            if len(page) < PAGE:
                return
            after = bare(page[-1].run_id)

    async def _learner(self, run: StoredRun, size: int, least: int) -> AdaptedWeights | None:
        """Return what a run has learnt, from memory or from the store; `None`: too little, or it is gone."""
        async with self._live.lock(run.run_id):  # so that it stays where it is
            slot = self._live.find(run.run_id)
            if slot is None:
                return await self._learner_from_store(run, size, least)
            group, row = slot.group, slot.row
            if int(group.records["key"][row]) != run.key:
                return None
            updates = adaptive(group.policy).meta_counters(group.states[row]).updates
            if updates < least:
                return None
            next_step = int(group.records["next_step"][row])
            return AdaptedWeights(updates, next_step, group.networks[row, :size].copy())

    async def _learner_from_store(self, run: StoredRun, size: int, least: int) -> AdaptedWeights | None:
        """Return what a run that is not in memory has learnt as it is stored now.

        It may have gone on, or back, since it was listed.
        """
        counters = adaptive_policy_of(run, self._catalog).meta_counters
        if counters(run.snapshot.state).updates < least:
            return None
        found = await self._stored.in_store(lambda store: store.get([run.run_id]))
        now = found.get(run.run_id)
        if now is None or now.key != run.key or counters(now.snapshot.state).updates < least:
            return None
        replayed = await self._stored.replay(now)
        return AdaptedWeights(
            counters(replayed.snapshot.state).updates, replayed.snapshot.next_step, replayed.network[:size]
        )

    def _added(
        self, average: WeightAverage, parent: CatalogModel, asked: PromoteRequest, tenant: str
    ) -> CatalogModel:
        """Store the new version."""
        wanted = {"prefix": asked.prefix, "min_updates": asked.min_updates}
        model = average.model(parent.model, f"{parent.name}@{parent.digest}", wanted)
        return self._catalog.add_version(model, parent.name, tenant, asked.alias)


def _page(store: Store, *, prefix: str, after: str, tenant: str) -> list[StoredRun]:
    return store.list(prefix=prefix, status=None, after=after, limit=PAGE, tenant=tenant)


def _nothing_adapted(parent: CatalogModel, asked: PromoteRequest) -> AdvisorError:
    among = f" whose id begins with {asked.prefix[:100]!r}" if asked.prefix else ""
    return AdvisorError(
        Reason.NOTHING_TO_DO,
        f"model: no run of {parent.ref}{among} has learnt anything for its model in {asked.min_updates} or "
        "more meta updates; create runs of it with config.meta.scope = ADAPT_SCOPE_MODEL, or ask for fewer "
        "updates or for more runs",
        field="model",
    )
