"""`mlrs health`: is a daemon up? For probes and scripts."""

from __future__ import annotations

from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlrs_cli.admin import channel_to
from mlrs_cli.root import DaemonAddress, daemon_options

STATUS = health_pb2.HealthCheckResponse.ServingStatus


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
@daemon_options
def health(service: str, timeout_s: float, daemon: DaemonAddress) -> None:
    """Ask a daemon whether it serves; exit with 0 if it does, with 1 if not. Needs no token.

    Probes of Kubernetes that speak gRPC speak no TLS, so with TLS have them run this command.

    \b
      mlrs health                            does it serve? Not while it drains
      mlrs health --service mlrs.v1.Store    can it store? Advice goes on if not: alert, do not restart
    """
    with channel_to(daemon) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError as error:
            says: Any = error
            raise click.ClickException(f"{daemon.address}: {_problem(says, service)}") from error
    if answer.status != STATUS.SERVING:
        raise click.ClickException(f"{daemon.address}: {STATUS.Name(answer.status)}")
    click.echo(STATUS.Name(answer.status))


def _problem(error: Any, service: str) -> str:
    """Return what an answer that is none says."""
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return f"the daemon knows no service {service!r}"
    return str(error.details() or error.code().name)
