"""Promotion: a new version of a model from the adapted weights of its runs."""

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
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.policies import adaptive_policy_of
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.meta.average import Contribution, WeightAverage
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import CatalogModel
from mlrs_server.storage import Store, StoredRun
from mlrs_server.tenancy import bare

log = structlog.get_logger()

PAGE = 256
"""The number of runs read from the store at a time."""


@dataclass(frozen=True, kw_only=True)
class PromoteRequest:
    """The runs that a new version is averaged from."""

    model: str
    """The model that the runs began with: a name, an alias or a reference."""
    alias: str = ""
    """The alias to point at the new version; "" for none."""
    prefix: str = ""
    """Only runs whose ids, without their tenant, begin with this prefix count."""
    min_updates: int = 1
    """Only runs with at least this many meta updates count."""
    dry_run: bool = False
    """Whether to store nothing."""


@dataclass(frozen=True)
class Promoted:
    """A new version of a model."""

    model: CatalogModel | None
    """The new version; `None` after a dry run."""
    named: list[Contribution]
    """The contributions of the first `MAX_NAMED` runs by id."""
    count: int
    """The number of runs averaged."""
    relative_change: float
    """The relative change from the model, as in `Contribution`."""


@dataclass(frozen=True)
class AdaptedWeights:
    """The adapted weights of a run."""

    updates: int
    next_step: int
    weights: Vector


class Promotion:
    """Makes new versions of models, one at a time. Used from one event loop, which it does not block."""

    def __init__(self, live: LiveRuns, stored: StoredRuns, catalog: ModelCatalog) -> None:
        """Read weights of runs in memory from `live`, and of all others from `stored`."""
        self._live = live
        self._stored = stored
        self._catalog = catalog
        self._lock = asyncio.Lock()

    async def promote(self, asked: PromoteRequest, tenant: str) -> Promoted:
        """Make a new version of a model for a tenant, averaged from the adapted weights of its runs.

        Raises:
            AdvisorError: there is no such model, the alias is invalid, no run has adapted weights, a run's
                record is damaged, or the store fails.
        """
        parent = await asyncio.to_thread(self._catalog.find, asked.model, tenant)
        if asked.alias:
            self._catalog.names.check_alias(asked.alias, tenant)
        async with self._lock:
            average = await asyncio.to_thread(
                lambda: WeightAverage(parent.model.adaptive_policy(DEFAULT_META))
            )
            await self._live.journal.flush()
            async for run in self._runs(parent, asked, tenant):
                found = await self._weights_of(run, average.size, asked.min_updates)
                if found is not None:
                    run_id = bare(run.run_id)
                    await asyncio.to_thread(
                        average.add, run_id, found.updates, found.next_step, found.weights
                    )
            if not average.count:
                raise _nothing_adapted(parent, asked)
            if asked.dry_run:
                return Promoted(None, average.named, average.count, average.relative_change())
            await self._live.journal.flush()  # so that a crash cannot undo updates of the new version
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
        """Yield the runs that adapt the weights of a model, ordered by id."""
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

    async def _weights_of(self, run: StoredRun, size: int, least: int) -> AdaptedWeights | None:
        """Return the adapted weights of a run; `None` if it has too few updates, or was deleted."""
        async with self._live.lock(run.run_id):  # so that the run is neither loaded nor dropped meanwhile
            slot = self._live.find(run.run_id)
            if slot is None:
                return await self._stored_weights_of(run, size, least)
            group, row = slot.group, slot.row
            if int(group.records["key"][row]) != run.key:
                return None
            updates = adaptive(group.policy).meta_counters(group.states[row]).updates
            if updates < least:
                return None
            next_step = int(group.records["next_step"][row])
            return AdaptedWeights(updates, next_step, group.networks[row, :size].copy())

    async def _stored_weights_of(self, run: StoredRun, size: int, least: int) -> AdaptedWeights | None:
        """Return the adapted weights of a run that is not in memory, as it is stored now.

        The run may have advanced, or been rewound, since it was listed.
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
        f"model: no run of {parent.ref}{among} has adapted weights after {asked.min_updates} or more meta "
        "updates; create runs of it with config.meta.scope = ADAPT_SCOPE_MODEL, or ask for fewer updates or "
        "for more runs",
        field="model",
    )
