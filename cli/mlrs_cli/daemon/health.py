"""`mlrs health`: is a daemon up? For probes and scripts."""

from __future__ import annotations

from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlrs_cli.admin import channel_to
from mlrs_cli.root import DaemonAddress, daemon_options

STATUS = health_pb2.HealthCheckResponse.ServingStatus
STORE = "mlrs.v1.Store"
"""What health checks call the daemon's store."""
CANNOT_STORE = f"but its store cannot be written ({STORE} is NOT_SERVING; the daemon's log says why)"


@click.command()
@click.option(
    "--service",
    default="",
    metavar="NAME",
    help="What to ask about: mlrs.v1.AdvisorService, or mlrs.v1.Store. [default: the daemon as a whole]",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.0, min_open=True),
    default=3.0,
    show_default=True,
    help="How long to wait for the answer.",
)
@click.option(
    "--ready",
    is_flag=True,
    help="Fail also while the store cannot be written, though the daemon goes on to advise.",
)
@daemon_options
def health(service: str, timeout_s: float, *, ready: bool, daemon: DaemonAddress) -> None:
    """Ask a daemon whether it serves; exit with 0 if it does, with 1 if not. Needs no token.

    A daemon whose store cannot be written serves: it advises from memory, and catches up. That is said as
    well, and with --ready it is a failure: for alerts, and for what starts new jobs. No restart helps.

    Probes of Kubernetes that speak gRPC speak no TLS, so with TLS have them run this command.

    \b
      mlrs health                            does it serve? Not while it drains
      mlrs health --ready                    does it serve, and can it store?
      mlrs health --service mlrs.v1.Store    can it store? Advice goes on if not: alert, do not restart
    """
    with channel_to(daemon) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            status = _status(stub, service, timeout_s)
            stores = service or status != STATUS.SERVING or _stores(stub, timeout_s)
        except grpc.RpcError as error:
            says: Any = error
            raise click.ClickException(f"{daemon.address}: {_problem(says, service)}") from error
    if status != STATUS.SERVING:
        raise click.ClickException(f"{daemon.address}: {STATUS.Name(status)}")
    said = STATUS.Name(status) if stores else f"{STATUS.Name(status)}, {CANNOT_STORE}"
    if ready and not stores:
        raise click.ClickException(f"{daemon.address}: {said}")
    click.echo(said)


def _status(stub: Any, service: str, timeout_s: float) -> int:
    """Return the status of a service.

    Raises:
        grpc.RpcError: there is no answer, or no such service.
    """
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s).status)


def _stores(stub: Any, timeout_s: float) -> bool:
    """Return whether the daemon's store works, as far as the daemon says."""
    try:
        return _status(stub, STORE, timeout_s) == int(STATUS.SERVING)
    except grpc.RpcError as error:
        says: Any = error
        if says.code() != grpc.StatusCode.NOT_FOUND:  # a daemon of an older version does not say
            raise
        return True


def _problem(error: Any, service: str) -> str:
    """Return what an answer that is none says."""
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return f"the daemon knows no service {service!r}"
    return str(error.details() or error.code().name)
