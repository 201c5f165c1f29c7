"""The dashboard beside a daemon: a process of its own, which ends with the daemon and cannot harm it."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import click

from mlrs_cli.dashboard.command import LISTEN, MISSING


def dashboard_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--dashboard` to the command that starts a daemon."""
    return click.option(
        "--dashboard",
        is_flag=False,
        flag_value=LISTEN,
        metavar="[HOST:PORT]",
        help=f"Serve the dashboard, too, in a process beside the daemon (`mlrs dashboard`). [default: no; "
        f"without an address {LISTEN}]",
    )(command)


def beside(settings: Any, listen: str | None) -> Callable[[str], None] | None:
    """Return what starts a dashboard once the daemon's address is known; `None`: none is wanted.

    Args:
        settings: those of the daemon.
        listen: where pages are served.

    Raises:
        click.ClickException: the dashboard is not installed, or could not connect to a daemon like this.
    """
    if listen is None:
        return None
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise click.ClickException(MISSING)
    if settings.tls is not None:
        raise click.UsageError(
            "--dashboard starts one for a daemon without TLS. With TLS it has to be told whom to trust: "
            "start `mlrs dashboard --connect HOST:PORT --ca-file FILE` by itself"
        )
    insecure = ["--insecure"] if settings.insecure else []

    def start(address: str) -> None:
        arguments = ["--connect", reached(address), "--listen", listen, "--until-stdin-closes", *insecure]
        threading.Thread(target=_run, args=[arguments], name="mlrs-dashboard", daemon=True).start()

    return start


def reached(address: str) -> str:
    """Return where this machine reaches a daemon that listens on an address."""
    host, _, port = address.rpartition(":")
    try:
        any_of = ipaddress.ip_address(host.strip("[]"))
    except ValueError:  # a name, or the path of a socket
        return address
    if not any_of.is_unspecified:
        return address
    return f"127.0.0.1:{port}" if any_of.version == 4 else f"[::1]:{port}"


def _run(arguments: list[str]) -> None:
    """Run the dashboard to its end, and log that.

    The system closes its standard input when the daemon ends, also when that is killed.
    """
    import structlog

    log = structlog.get_logger()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLRS_")}
    try:
        process = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-m", "mlrs_cli", "dashboard", *arguments],
            stdin=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        log.warning("dashboard_not_started", problem=str(error))
        return
    status = process.wait()
    (log.warning if status else log.info)("dashboard_ended", status=status)
