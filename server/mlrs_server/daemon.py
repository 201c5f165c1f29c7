"""The daemon process: start, health checks, reflection, and a drain that completes every call."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mlrs_proto.v1.advisor_service_pb2_grpc import add_AdvisorServiceServicer_to_server
from mlrs_proto.v1.daemon_service_pb2_grpc import add_DaemonServiceServicer_to_server
from mlrs_proto.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from mlrs_proto.v1.task_service_pb2_grpc import add_TaskServiceServicer_to_server
from mlrs_server.assembly import SERVICES, Daemon, assembled, housekeeping
from mlrs_server.auth.exposure import check_exposure, is_local
from mlrs_server.auth.tls import server_credentials
from mlrs_server.auth.token_store import TokenStore
from mlrs_server.auth.tokens import TokenFile
from mlrs_server.cluster.replica import Replica
from mlrs_server.cluster.sharing import Sharing, check_advertised
from mlrs_server.config import ServerConfig
from mlrs_server.errors import AdvisorError, invalid_field
from mlrs_server.failpoints import ARMED, reach
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.models.legacy_folder import bring_models_over
from mlrs_server.ops.idle_exit import unused
from mlrs_server.rpc.listening import UNIX, claimed
from mlrs_server.storage import SqlStore, open_store
from mlrs_server.system.background import in_background
from mlrs_server.system.data_folder import address_file, locked_folder

log = structlog.get_logger()

SWITCH_S = 0.0005
"""How long the store's thread may keep the interpreter from an observation: a tenth of Python's default."""
LAST_ANSWERS_S = 0.2
"""How long the last answers may take to be sent after every call of the services has ended."""
LEAVE_LEAST_S = 2.0
"""The least time for deleting the lease, even if the drain timeout has passed."""
STREAMS_A_CONNECTION = 1024
"""Open calls per connection; more wait at the client. A training process has one stream."""


def serve(config: ServerConfig, on_listening: Callable[[str], object] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        config: its settings.
        on_listening: is called with the address once the daemon listens.

    Raises:
        AdvisorError: the data folder or the address cannot be used, or the default model does not exist.
    """
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        has_started = runner.run(_serve_until_stopped(config, on_listening))
    if not has_started:  # a normal exit would wait for the compiler, for seconds
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def _serve_until_stopped(config: ServerConfig, on_listening: Callable[[str], object] | None) -> bool:
    """Serve until a signal; return whether the start was complete by then."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as running:
        starting = asyncio.create_task(running.enter_async_context(running_daemon(config, stop)))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # no call was answered yet, so nothing is lost
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
            log.info("stopped_at_start")
            return False
        address = starting.result()
        gc.freeze()  # modules, machine code and models live for ever: collections skip them
        gc.enable()  # `mlrs serve` imports without it, which leaves two thousand objects to be collected
        with suppress(OSError):  # whoever started it may have ended
            os.write(sys.stdout.fileno(), f"mlrs is listening on {address}\n".encode())
        if on_listening is not None:
            on_listening(address)
        await stopping
    return True


@asynccontextmanager
async def running_daemon(config: ServerConfig, stop: asyncio.Event | None = None) -> AsyncIterator[str]:
    """Run a daemon for the length of the block; yield its address, HOST:PORT. Drain it at the end.

    Args:
        config: its settings.
        stop: is set when nobody has used the daemon for as long as `exit_after_idle_s` says.

    Raises:
        AdvisorError: as for `serve`.
    """
    with ExitStack() as opened:
        opened.enter_context(locked_folder(config.data_dir))
        opened.enter_context(claimed(config.listen))
        write_address = opened.enter_context(address_file(config.data_dir))
        tokens, credentials = _checked_security(config)
        store, executor, shared = await _opened_store(config, opened)
        catalog = await in_background(lambda: _catalog(config, store, executor))
        daemon = assembled(config, tokens, store, executor, catalog, shared)
        await daemon.live.code.prepare()
        if daemon.collector is not None:
            from mlrs_server.telemetry.metrics import serving_metrics  # its library costs start-up time

            opened.enter_context(serving_metrics(daemon.collector, config.metrics))
        server, checks = _build_server(daemon, config)
        address = await _bind(server, config.listen, credentials)
        write_address(address)
        daemon.overview.address = config.advertise or address
        replica = await _joined(daemon, shared, daemon.overview.address)
        await server.start()
        await _set_healthy(daemon, checks)
        if ARMED:
            log.warning("failpoints_armed", points=sorted(ARMED))
        default = catalog.by_digest(*catalog.names.meaning("", "")).ref
        log.info("listening", address=address, data_dir=str(config.data_dir), model=default)
        tasks = housekeeping(daemon, config, tokens, shared)
        if stop is not None and config.exit_after_idle_s is not None:
            tasks.append(
                asyncio.create_task(_stop_when_unused(daemon, config.exit_after_idle_s, config.listen, stop))
            )
        try:
            yield address
        finally:
            for task in tasks:
                task.cancel()
            await _drain(daemon, server, checks, replica, timeout_s=config.drain_timeout_s)


async def _stop_when_unused(daemon: Daemon, after_s: float, listen: str, stop: asyncio.Event) -> None:
    socket = Path(listen.removeprefix(UNIX))

    def is_reachable() -> bool:
        return not listen.startswith(UNIX) or socket.exists()

    await unused(daemon.status, after_s=after_s, is_reachable=is_reachable)
    stop.set()


async def _opened_store(
    config: ServerConfig, opened: ExitStack
) -> tuple[SqlStore, ThreadPoolExecutor, Sharing | None]:
    """Open the store; return it, its thread, and the parts of a replica if several daemons share it."""
    if config.store:
        check_advertised(config.advertise or config.listen)
    executor = opened.enter_context(ThreadPoolExecutor(1, "mlrs-store"))
    where = config.store.get_secret_value() if config.store else config.data_dir / "mlrs.sqlite3"
    store = await in_background(lambda: open_store(where), SqlStore.close)
    opened.callback(store.close)
    opened.callback(executor.shutdown, cancel_futures=True)
    shared = Sharing(store, lease_s=config.lease_s) if config.store else None
    if shared:
        opened.callback(shared.close)
    return store, executor, shared


def _catalog(config: ServerConfig, store: SqlStore, executor: ThreadPoolExecutor) -> ModelCatalog:
    """Return the catalogue of models, with the default one checked; on any thread."""
    ask = asking(store, executor)
    ask(lambda _: bring_models_over(config.data_dir, store))
    catalog = ModelCatalog(ask, default=config.model)
    catalog.find("")
    return catalog


async def _joined(daemon: Daemon, shared: Sharing | None, address: str) -> Replica | None:
    """Join the other replicas, if the store is shared."""
    if shared is None:
        return None
    replica = await shared.join(daemon.live, daemon.watchers, address)
    replica.on_health = daemon.health.reporter("leases")
    return replica


async def _set_healthy(daemon: Daemon, checks: health.aio.HealthServicer) -> None:
    for name in (*SERVICES, ""):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    await daemon.health.serve(checks)


async def _drain(
    daemon: Daemon,
    server: grpc.aio.Server,
    checks: health.aio.HealthServicer,
    replica: Replica | None,
    *,
    timeout_s: float,
) -> None:
    """Become unhealthy, hand shards over to other replicas, let streams finish their steps, store everything.

    One deadline holds for all of it; a transaction that has begun by then ends by the store's own timeouts.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + timeout_s
    log.info("draining")
    reach("daemon.drain")
    await checks.enter_graceful_shutdown()
    if replica is not None:
        await replica.drain(within_s=timeout_s / 2)  # streams need some of the time too
    daemon.advisor.drain()
    daemon.models.drain()
    stopping = asyncio.create_task(server.stop(max(until - clock(), 0.0)))
    calls = asyncio.create_task(daemon.status.idle())
    await asyncio.wait({stopping, calls}, return_when=asyncio.FIRST_COMPLETED)
    calls.cancel()
    await server.stop(LAST_ANSWERS_S)  # health watches are left, which never end by themselves
    await stopping
    reach("daemon.drained")
    try:
        await daemon.changes.close(within_s=until - clock())
        if replica is not None:
            await replica.leave(within_s=max(until - clock(), LEAVE_LEAST_S))
    except AdvisorError as error:
        log.error("store_failing_at_exit", problem=str(error))
        raise
    log.info("stopped")


def _checked_security(config: ServerConfig) -> tuple[TokenStore, grpc.ServerCredentials | None]:
    """Return the tokens and the credentials, after checking that they suffice for the address."""
    tokens = TokenStore(
        TokenFile(config.tokens_path),
        required=config.tokens_file is not None,
        marker=config.data_dir / "tokens.required",
    )
    credentials = None if config.tls is None else server_credentials(config.tls)
    check_exposure(
        config.listen,
        tls=credentials is not None,
        client_certificates=config.tls_client_ca is not None,
        tokens=tokens.is_on,
        insecure=config.insecure,
    )
    if config.insecure and not is_local(config.listen):
        log.warning("insecure", listen=config.listen, tls=credentials is not None, tokens=tokens.is_on)
    return tokens, credentials


def _build_server(daemon: Daemon, config: ServerConfig) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    server = grpc.aio.server(
        interceptors=[daemon.status],
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # two daemons on one port would split a run's stream
            ("grpc.max_concurrent_streams", STREAMS_A_CONNECTION),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients ping every 10 s
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    add_AdvisorServiceServicer_to_server(daemon.advisor, server)
    add_ModelServiceServicer_to_server(daemon.models, server)
    add_TaskServiceServicer_to_server(daemon.tasks, server)
    add_DaemonServiceServicer_to_server(daemon.daemon, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if config.reflection != "off":
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    return server, checks


async def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """Bind the server; return its address with the actual port."""
    try:
        if credentials is None:
            port = server.add_insecure_port(listen)
        else:
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        await server.stop(None)
        problem = f"cannot listen on {listen}: {error}; choose another address with --listen"
        raise invalid_field("listen", problem) from error
    return listen if listen.startswith(UNIX) else f"{listen.rpartition(':')[0]}:{port}"
