"""The parts of a daemon, put together: what answers calls, and what goes on beside them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlrs_proto.v1 import advisor_service_pb2, model_service_pb2
from mlrs_server.adapting.making import Adaptation
from mlrs_server.adapting.promotion import Promotion
from mlrs_server.compaction import compact_resting_runs
from mlrs_server.config import ServerConfig
from mlrs_server.counts import AdviceCounts
from mlrs_server.engine import Engine
from mlrs_server.feeders import Feeders
from mlrs_server.gathering import Gatherer
from mlrs_server.health import StoreHealth
from mlrs_server.idle import drop_idle_runs
from mlrs_server.lifecycle import RunLifecycle
from mlrs_server.live import LiveRuns
from mlrs_server.meta_service import MetaService
from mlrs_server.metrics import DaemonCollector
from mlrs_server.model_service import ModelService
from mlrs_server.models import ModelCatalog
from mlrs_server.records import RunRecords
from mlrs_server.security.book import TokenBook
from mlrs_server.security.gate import Gate
from mlrs_server.security.quota import RunQuota
from mlrs_server.service import AdvisorService
from mlrs_server.sharing import Sharing
from mlrs_server.status import StatusInterceptor
from mlrs_server.store import SqlStore
from mlrs_server.watchers import Watchers

SERVICES: tuple[str, ...] = tuple(
    service.full_name
    for file in (advisor_service_pb2, model_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""The full names of the contract's services."""


@dataclass(frozen=True)
class Daemon:
    """What answers calls."""

    watchers: Watchers
    live: LiveRuns
    lifecycle: RunLifecycle
    advisor: AdvisorService
    models: ModelService
    status: StatusInterceptor
    health: StoreHealth
    collector: DaemonCollector


def assembled(
    config: ServerConfig,
    book: TokenBook,
    store: SqlStore,
    executor: ThreadPoolExecutor,
    catalog: ModelCatalog,
    shared: Sharing | None,
) -> Daemon:
    """Put together what answers calls."""
    watchers = Watchers()
    live = LiveRuns(
        store,
        executor,
        catalog,
        flush_interval_s=config.flush_interval_s,
        on_flushed=watchers.wake,
        max_undurable=config.max_undurable,
        ownership=shared.ownership if shared else None,
    )
    quota = RunQuota(config.limits_of, live.count_unfinished)
    feeders = Feeders()
    lifecycle = RunLifecycle(live, watchers, catalog, quota.taking, feeders)
    engine, records = Engine(live.groups, live.journal), RunRecords(live, watchers)
    counts = AdviceCounts()
    meta = MetaService(lifecycle, Adaptation(live), counts)
    gatherer = Gatherer(live, engine, records)
    advisor = AdvisorService(lifecycle, records, engine, gatherer, meta, counts, feeders)
    models = ModelService(catalog, Promotion(live, catalog), config.data_dir)
    gate = Gate(book, config.limits_of, reflection=config.reflection)
    status = StatusInterceptor(SERVICES, gate)
    health = StoreHealth()
    live.journal.on_health = health.says("flushes")
    collector = DaemonCollector(counts, live, gate, status.refusals, health, gatherer)
    return Daemon(watchers, live, lifecycle, advisor, models, status, health, collector)


def housekeeping(
    daemon: Daemon, config: ServerConfig, book: TokenBook, shared: Sharing | None
) -> list[asyncio.Task[None]]:
    """Start what goes on beside calls, until cancelled."""
    owned = shared.owned if shared else None
    return [
        asyncio.create_task(drop_idle_runs(daemon.live, config.idle_after_s)),
        asyncio.create_task(compact_resting_runs(daemon.live, config.idle_after_s, owned=owned)),
        asyncio.create_task(book.keep_fresh()),
    ]
