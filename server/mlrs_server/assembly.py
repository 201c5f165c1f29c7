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


def assembled(
    config: ServerConfig,
    tokens: TokenStore,
    store: SqlStore,
    executor: ThreadPoolExecutor,
    catalog: ModelCatalog,
    shared: Sharing | None,
) -> Daemon:
    """Assemble the parts that answer calls."""
    watchers = Watchers()
    journal = Journal(
        store,
        executor,
        interval_s=config.flush_interval_s,
        on_flushed=watchers.wake,
        max_unflushed=config.max_unflushed,
    )
    live, changes = LiveRuns(catalog, journal), RunChanges(journal)
    stored = StoredRuns(store, executor, catalog, live, shared.ownership if shared else None)
    quota = RunQuota(config.limits_of, stored.count_unfinished)
    feeders = Feeders()
    memory = TaskMemory(stored, catalog, abandoned_after_s=config.abandoned_after_s)
    opener = RunOpener(
        live, stored, watchers, catalog, changes, memory=memory, quota=quota.reserved, feeders=feeders
    )
    ending = RunEnding(live, stored, watchers, changes, memory)
    engine, records = Engine(live.groups, journal), RunRecords(live, stored, watchers)
    recaller = Recaller(stored)
    searches = RunSearches(live, stored, catalog, changes)
    counts = AdviceCounts()
    meta = MetaService(opener, Adaptation(live, stored), counts)
    rank_reducer = RankReducer(live, engine, recaller)
    advisor = AdvisorService(
        opener,
        ending,
        records,
        RunSummaries(stored),
        RunNotes(stored, changes),
        searches,
        recaller,
        engine,
        rank_reducer,
        meta,
        counts,
        feeders,
    )
    models = ModelService(catalog, Promotion(live, stored, catalog), config.data_dir)
    authenticator = Authenticator(tokens, config.limits_of, reflection=config.reflection)
    status = StatusInterceptor(SERVICES, authenticator)
    health = StoreHealth()
    journal.on_health = health.reporter("flushes")
    figures = DaemonFigures(
        counts=counts,
        refused_calls=status.refusals,
        live=live,
        watchers=watchers,
        rank_reducer=rank_reducer,
        health=health,
        engine_name=store.engine_name,
        open_streams=authenticator.stream_count,
        advice_streams=advisor.stream_count,
    )
    overview = Overview(stored, shared.ownership if shared else None)
    collector: DaemonCollector | None = None
    if config.metrics is not None:
        from mlrs_server.telemetry.metrics import DaemonCollector  # Prometheus' library costs start-up time

        collector = DaemonCollector(figures)
    return Daemon(
        watchers,
        live,
        stored,
        changes,
        advisor,
        models,
        TaskService(memory),
        DaemonService(config.exit_after_idle_s, figures, overview),
        memory,
        status,
        overview,
        health,
        collector,
    )


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
