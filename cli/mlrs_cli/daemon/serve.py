"""`mlrs serve`: the daemon."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import click

from mlrs_cli.daemon.local import local_settings, told_starter
from mlrs_cli.dashboard.beside import beside, dashboard_option
from mlrs_cli.root import data_dir_option, reported

PEM = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--local",
    is_flag=True,
    help="Be this user's daemon on this machine, which programs find without an address: at a socket of its "
    "own, with data of its own, until it is unused for ten minutes.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen; port 0 picks a free one, unix:/PATH is a socket. [default: 127.0.0.1:50051]",
)
@data_dir_option
@click.option(
    "--store",
    metavar="URL",
    help="A database that several daemons share, postgresql://USER:PASSWORD@HOST/NAME; better said in "
    "MLRS_STORE, as other users of the machine can read a command line. [default: a file in the data folder]",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="Where clients reach this daemon, if others share its store. [default: where it listens]",
)
@click.option(
    "--lease-s",
    type=float,
    help="How long it may be silent before those others take its runs over. [default: 5]",
)
@click.option(
    "--model",
    metavar="NAME|FILE",
    help="The model of runs that name none: a name (`mlrs models list`) or a .safetensors file. "
    "[default: mlr-snet]",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MLRS_CONFIG",
    show_envvar=True,
    help="A TOML file of settings.",
)
@click.option(
    "--flush-interval-s",
    type=float,
    help="How long an answer waits to be stored, unless the store is busy. [default: 0.1]",
)
@click.option(
    "--idle-after-s",
    type=float,
    help="How long a run stays in memory unobserved; it comes back when it is asked for. [default: 3600]",
)
@click.option(
    "--abandoned-after-s",
    type=float,
    help="How long a run may be silent before the memory of its task no longer waits for its end. "
    "[default: 86400]",
)
@click.option(
    "--exit-after-idle-s",
    type=float,
    help="End by itself after so long without a call or a stream. [default: never; with --local 600]",
)
@click.option(
    "--max-unflushed",
    type=int,
    help="The most answers that wait to be stored, 40 bytes each; beyond it observations are refused. "
    "[default: 4194304]",
)
@click.option(
    "--drain-timeout-s",
    type=float,
    help="How long exit may take; what the store is at by then may end, within limits of its own. "
    "[default: 10]",
)
@click.option("--max-message-bytes", type=int, help="The largest message that is read. [default: 4194304]")
@click.option(
    "--tls-cert", type=PEM, help="A certificate, as PEM, read again as it changes. [default: no TLS]"
)
@click.option("--tls-key", type=PEM, help="Its private key, as PEM.")
@click.option("--tls-client-ca", type=PEM, help="The authorities of clients' certificates (mutual TLS).")
@click.option(
    "--tokens-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Want a token of this file (`mlrs tokens`) with every call. [default: DATA_DIR/tokens.json "
    "if it has any]",
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Listen beyond this machine though TLS, or tokens and client certificates, are missing.",
)
@click.option(
    "--reflection",
    type=click.Choice(["auto", "on", "off"]),
    help="Who may list the calls of the service by reflection: with tokens admins only, all callers, nobody. "
    "[default: auto]",
)
@dashboard_option
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus finds metrics. [default: nowhere]")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is logged. [default: info]",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "console", "json"]),
    help="How it is logged, on standard error. [default: auto]",
)
def serve(config: Path | None, dashboard: str | None, *, local: bool, **flags: Any) -> None:
    """Serve learning-rate advice until it is stopped (Ctrl-C or SIGTERM).

    Runs, their records and their states are kept in the data folder: a daemon that is stopped, or
    killed, goes on where it was when it is started again. On SIGTERM it becomes unhealthy, lets every
    open stream finish its step, stores everything, and exits.

    \b
    Every option is also a setting:
      mlrs serve --listen 127.0.0.1:50051       a flag, which wins over
      MLRS_LISTEN=127.0.0.1:50051 mlrs serve    an environment variable, which wins over
      mlrs serve --config mlrs.toml             a line `listen = "127.0.0.1:50051"` in a file

    \b
    Without an address, for the programs of one user on one machine. They also start it by themselves:
      mlrs serve --local
      mlrs stop

    \b
    Open to other machines:
      mlrs tokens create --tenant acme --name ci
      mlrs serve --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem

    \b
    With pages to look at runs:
      mlrs serve --dashboard                    at http://127.0.0.1:8265

    \b
    Is it up?
      mlrs runs list
      grpcurl -plaintext 127.0.0.1:50051 grpc.health.v1.Health/Check
    """
    # One BLAS thread: products of large networks must not depend on the number of cores (ADR 0014).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # a fifth of the imports' time; the daemon enables it once it listens
    from mlrs_server.config import load_config
    from mlrs_server.daemon import serve as run_daemon
    from mlrs_server.errors import AdvisorError
    from mlrs_server.telemetry.logs import configure_logs

    if local:
        flags |= local_settings(flags)
    # What the system refuses a start, as by a limit, is no defect.
    with reported(AdvisorError, OSError), told_starter(is_local=local):
        settings = load_config(config, flags)
        configure_logs(settings.log_level, settings.log_format)
        run_daemon(settings, beside(settings, dashboard))
