"""The daemon: start, health, reflection, and a drain that leaves nothing unfinished."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mlrs_proto.v1 import advisor_pb2
from mlrs_proto.v1.advisor_pb2_grpc import add_AdvisorServiceServicer_to_server
from mlrs_server.compaction import compact_resting_runs
from mlrs_server.config import ServerConfig
from mlrs_server.engine import Engine
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.folder import locked_folder
from mlrs_server.idle import drop_idle_runs
from mlrs_server.lifecycle import RunLifecycle
from mlrs_server.live import LiveRuns
from mlrs_server.models import ModelCatalog
from mlrs_server.records import RunRecords
from mlrs_server.service import AdvisorService
from mlrs_server.status import StatusInterceptor
from mlrs_server.store import open_store
from mlrs_server.warmup import warm_up
from mlrs_server.watchers import Watchers

log = structlog.get_logger()

SWITCH_S = 0.0005
"""How long the store's thread may keep the interpreter from an observation: a tenth of Python's default."""
FAREWELL_S = 0.2
"""How long the last answers may take to leave once every call of the service has ended."""
SERVICE: str = advisor_pb2.DESCRIPTOR.services_by_name["AdvisorService"].full_name


def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        AdvisorError: the data folder or the address cannot be used, or the default model is none.
    """
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_told(config))


async def _serve_until_told(config: ServerConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_daemon(config) as address:
        gc.collect()
        gc.freeze()  # modules, machine code and models stay: no collection need look at them again
        print(f"mlrs is listening on {address}", flush=True)  # noqa: T201  # for people and scripts alike
        await stop.wait()


@asynccontextmanager
async def running_daemon(config: ServerConfig) -> AsyncIterator[str]:
    """Run a daemon; yield the address that it listens on, HOST:PORT. Drain it on leaving.

    Raises:
        AdvisorError: as `serve`.
    """
    with locked_folder(config.data_dir), ThreadPoolExecutor(1, "mlrs-store") as executor:
        store = executor.submit(open_store, config.data_dir / "mlrs.sqlite3").result()
        try:
            catalog = ModelCatalog(config.data_dir, default=config.model)
            default = catalog.find("")
            warm_up()
            watchers = Watchers()
            live = LiveRuns(
                store,
                executor,
                catalog,
                flush_interval_s=config.flush_interval_s,
                on_flushed=watchers.wake,
                max_undurable=config.max_undurable,
            )
            lifecycle = RunLifecycle(live, watchers, catalog)
            engine = Engine(live.groups, live.journal)
            service = AdvisorService(lifecycle, RunRecords(live, watchers), engine, catalog)
            status = StatusInterceptor(SERVICE)
            server, checks = _build_server(service, status, config)
            address = await _start(server, config.listen)
            await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
            await checks.set("", health_pb2.HealthCheckResponse.SERVING)
            log.info("listening", address=address, data_dir=str(config.data_dir), model=default.ref)
            idle = asyncio.gather(
                drop_idle_runs(live, config.idle_after_s),
                compact_resting_runs(live, config.idle_after_s),
            )
            try:
                yield address
            finally:
                idle.cancel()
                await _drain(server, checks, service, status, lifecycle, timeout_s=config.drain_timeout_s)
        finally:
            executor.submit(store.close).result()


async def _drain(
    server: grpc.aio.Server,
    checks: health.aio.HealthServicer,
    service: AdvisorService,
    status: StatusInterceptor,
    lifecycle: RunLifecycle,
    *,
    timeout_s: float,
) -> None:
    """Say goodbye: unhealthy first, streams finish their step, then everything is stored."""
    log.info("draining")
    await checks.enter_graceful_shutdown()
    service.drain()
    stopping = asyncio.create_task(server.stop(timeout_s))
    calls = asyncio.create_task(status.idle())
    await asyncio.wait({stopping, calls}, return_when=asyncio.FIRST_COMPLETED)
    calls.cancel()
    await server.stop(FAREWELL_S)  # what is left are health watches and the like, which end on no word
    await stopping
    try:
        await lifecycle.close()
    except AdvisorError as error:
        log.error("store_failing_at_exit", problem=str(error))
        raise
    log.info("stopped")


def _build_server(
    service: AdvisorService, status: StatusInterceptor, config: ServerConfig
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        interceptors=[status],
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # two daemons on one port would split a run's stream
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients ping every 10 s
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    add_AdvisorServiceServicer_to_server(service, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, checks


async def _start(server: grpc.aio.Server, listen: str) -> str:
    """Bind and start the server; return its address, with the port it got."""
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        await server.stop(None)
        raise AdvisorError(
            Reason.INVALID_FIELD,
            f"listen: cannot listen on {listen}; is the port taken, or the host another machine's? "
            "Choose another with --listen",
            field="listen",
        ) from error
    await server.start()
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
