"""The assembly of a daemon: the parts that answer calls, and the background tasks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlrs_proto.v1 import advisor_service_pb2, daemon_service_pb2, model_service_pb2, task_service_pb2
from mlrs_server.auth.authenticator import Authenticator
from mlrs_server.auth.quota import RunQuota
from mlrs_server.auth.token_store import TokenStore
from mlrs_server.cluster.overview import Overview
from mlrs_server.cluster.sharing import Sharing
from mlrs_server.config import ServerConfig
from mlrs_server.live.engine import Engine
from mlrs_server.live.idle import drop_idle_runs
from mlrs_server.live.journal import Journal
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.recall import Recaller
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.meta.apply import Adaptation
from mlrs_server.meta.promotion import Promotion
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.ops.compaction import compact_resting_runs
from mlrs_server.ranks.reports import RankReducer
from mlrs_server.rpc.daemon_service import DaemonService
from mlrs_server.rpc.meta_service import MetaService
from mlrs_server.rpc.model_service import ModelService
from mlrs_server.rpc.service import AdvisorService
from mlrs_server.rpc.status import StatusInterceptor
from mlrs_server.rpc.task_service import TaskService
from mlrs_server.runs.annotating import RunNotes
from mlrs_server.runs.changes import RunChanges
from mlrs_server.runs.ending import RunEnding
from mlrs_server.runs.feeders import Feeders
from mlrs_server.runs.opener import RunOpener
from mlrs_server.runs.records import RunRecords
from mlrs_server.runs.remembering import TaskMemory
from mlrs_server.runs.searching import RunSearches
from mlrs_server.runs.summaries import RunSummaries
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import SqlStore
from mlrs_server.telemetry.counts import AdviceCounts
from mlrs_server.telemetry.figures import DaemonFigures
from mlrs_server.telemetry.health import StoreHealth

if TYPE_CHECKING:
    from mlrs_server.telemetry.metrics import DaemonCollector

SERVICES: tuple[str, ...] = tuple(
    service.full_name
    for file in (advisor_service_pb2, model_service_pb2, task_service_pb2, daemon_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""The full names of the contract's services."""


@dataclass(frozen=True)
class Daemon:
    """The parts that answer calls."""

    watchers: Watchers
    live: LiveRuns
    stored: StoredRuns
    changes: RunChanges
    advisor: AdvisorService
    models: ModelService
    tasks: TaskService
    daemon: DaemonService
    memory: TaskMemory
    status: StatusInterceptor
    overview: Overview
    health: StoreHealth
    collector: DaemonCollector | None
    """Of metrics, if they are served."""


@dataclass(frozen=True)
class _Runs:
    """What holds runs, in memory and in the store, and what else the calls about them share."""

    catalog: ModelCatalog
    watchers: Watchers
    journal: Journal
    live: LiveRuns
    changes: RunChanges
    stored: StoredRuns
    memory: TaskMemory
    counts: AdviceCounts


def assembled(
    config: ServerConfig,
    tokens: TokenStore,
    store: SqlStore,
    executor: ThreadPoolExecutor,
    catalog: ModelCatalog,
    shared: Sharing | None,
) -> Daemon:
    """Assemble the parts that answer calls."""
    runs = _runs(config, store, executor, catalog, shared)
    advisor, rank_reducer = _advisor(config, runs)
    authenticator = Authenticator(tokens, config.limits_of, reflection=config.reflection)
    status = StatusInterceptor(SERVICES, authenticator)
    health = StoreHealth()
    runs.journal.on_health = health.reporter("flushes")
    figures = DaemonFigures(
        counts=runs.counts,
        refused_calls=status.refusals,
        live=runs.live,
        watchers=runs.watchers,
        rank_reducer=rank_reducer,
        health=health,
        engine_name=store.engine_name,
        open_streams=authenticator.stream_count,
        advice_streams=advisor.stream_count,
    )
    overview = Overview(runs.stored, shared.ownership if shared else None)
    return Daemon(
        watchers=runs.watchers,
        live=runs.live,
        stored=runs.stored,
        changes=runs.changes,
        advisor=advisor,
        models=ModelService(catalog, Promotion(runs.live, runs.stored, catalog), config.data_dir),
        tasks=TaskService(runs.memory),
        daemon=DaemonService(config.exit_after_idle_s, figures, overview),
        memory=runs.memory,
        status=status,
        overview=overview,
        health=health,
        collector=None if config.metrics is None else _collector(figures),
    )


def _runs(
    config: ServerConfig,
    store: SqlStore,
    executor: ThreadPoolExecutor,
    catalog: ModelCatalog,
    shared: Sharing | None,
) -> _Runs:
    watchers = Watchers()
    journal = Journal(
        store,
        executor,
        interval_s=config.flush_interval_s,
        on_flushed=watchers.wake,
        max_unflushed=config.max_unflushed,
    )
    live = LiveRuns(catalog, journal)
    stored = StoredRuns(store, executor, catalog, live, shared.ownership if shared else None)
    return _Runs(
        catalog=catalog,
        watchers=watchers,
        journal=journal,
        live=live,
        changes=RunChanges(journal),
        stored=stored,
        memory=TaskMemory(stored, catalog, abandoned_after_s=config.abandoned_after_s),
        counts=AdviceCounts(),
    )


def _advisor(config: ServerConfig, runs: _Runs) -> tuple[AdvisorService, RankReducer]:
    """Return the service of runs, and what it reduces the losses of ranks with."""
    live, stored, watchers, changes = runs.live, runs.stored, runs.watchers, runs.changes
    quota, feeders = RunQuota(config.limits_of, stored.count_unfinished), Feeders()
    opener = RunOpener(
        live,
        stored,
        watchers,
        runs.catalog,
        changes,
        memory=runs.memory,
        quota=quota.reserved,
        feeders=feeders,
    )
    engine, recaller = Engine(live.groups, runs.journal), Recaller(stored)
    rank_reducer = RankReducer(live, engine, recaller)
    service = AdvisorService(
        opener,
        RunEnding(live, stored, watchers, changes, runs.memory),
        RunRecords(live, stored, watchers),
        RunSummaries(stored),
        RunNotes(stored, changes),
        RunSearches(live, stored, runs.catalog, changes),
        recaller,
        engine,
        rank_reducer,
        MetaService(opener, Adaptation(live, stored), runs.counts),
        runs.counts,
        feeders,
    )
    return service, rank_reducer


def _collector(figures: DaemonFigures) -> DaemonCollector:
    from mlrs_server.telemetry.metrics import DaemonCollector  # Prometheus' library costs start-up time

    return DaemonCollector(figures)


def housekeeping(
    daemon: Daemon, config: ServerConfig, tokens: TokenStore, shared: Sharing | None
) -> list[asyncio.Task[None]]:
    """Start the background tasks, which run until cancelled."""
    live, stored, held = daemon.live, daemon.stored, shared.held_shards if shared else None
    return [
        asyncio.create_task(drop_idle_runs(live, config.idle_after_s)),
        asyncio.create_task(compact_resting_runs(live, stored, config.idle_after_s, held_shards=held)),
        asyncio.create_task(daemon.memory.keep_settled(held_shards=held)),
        asyncio.create_task(tokens.keep_fresh()),
    ]
