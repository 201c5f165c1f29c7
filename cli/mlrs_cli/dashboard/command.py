"""`mlrs dashboard`: the process that serves pages."""

from __future__ import annotations

import sys
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlrs_cli.dashboard.shown import Shown, shown_daemon
from mlrs_cli.root import DaemonAddress, access_options, reported

if TYPE_CHECKING:
    from mlrs_web.settings import Settings

LISTEN = "127.0.0.1:8265"
MISSING = "The dashboard is not installed. Install it with: pip install 'mlrs[dashboard]'"
PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option(
    "--connect",
    "address",
    envvar="MLRS_TARGET",
    show_envvar=True,
    metavar="HOST:PORT",
    help="The daemon's address, or those of several replicas, with commas between them. [default: this "
    "user's daemon, which is started if need be; if it does not run, a daemon at 127.0.0.1:50051]",
)
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Show the runs in this data folder; a daemon is started on it, and ends with the dashboard.",
)
@click.option("--demo", is_flag=True, help="Show recorded runs. Nothing is trained.")
@click.option(
    "--listen",
    default=LISTEN,
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve pages; port 0 picks a free one.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which browsers may reach the dashboard, besides localhost and the host of --listen. "
    "May be given several times; * allows every name.",
)
@click.option(
    "--token-file",
    type=PEM,
    help="A file with the dashboard's own token: everyone who can open a page uses it. [default: MLRS_TOKEN "
    "if it is set, else each browser signs in where the daemon has tokens]",
)
@click.option("--tls-cert", type=PEM, help="Serve pages with TLS: the certificate, as PEM.")
@click.option("--tls-key", type=PEM, help="The private key of --tls-cert, as PEM.")
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine without TLS, or with a token of the dashboard's own.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    hidden=True,
    help="End when standard input does: for the process that starts it.",
)
@access_options
def dashboard(
    daemon: DaemonAddress,
    data_dir: Path | None,
    listen: str,
    token_file: Path | None,
    *,
    demo: bool,
    opens: bool,
    until_stdin_closes: bool,
    **others: Any,
) -> None:
    """Show runs in the browser, live, until it is stopped (Ctrl-C).

    Losses and learning rates, comparisons, what the memory of a task knows, models, and the daemon's health.
    The dashboard reads and changes nothing. It is a process of its own, so that no page slows advice.

    \b
    Look at the runs of this machine, or of recorded ones:
      mlrs dashboard --open
      mlrs dashboard --demo

    \b
    Look at another daemon, or at runs that no daemon serves now:
      mlrs dashboard --connect gpu-7:50051 --ca-file ca.pem
      mlrs dashboard --data-dir demo-output/state

    \b
    From another machine, the simplest way is a tunnel: then open http://127.0.0.1:8265
      ssh -t -L 8265:127.0.0.1:8265 gpu-7 mlrs dashboard

    \b
    Open to others, who sign in with tokens of the daemon (`mlrs tokens create`):
      mlrs dashboard --listen 0.0.0.0:8265 --tls-cert cert.pem --tls-key key.pem --allowed-host runs.acme.org
    """
    with ExitStack() as stack:
        try:
            from mlrs_web.server import serve
        except ModuleNotFoundError as error:
            if error.name not in {"starlette", "uvicorn", "mlrs_web"}:
                raise
            raise click.ClickException(MISSING) from error
        token = token_file.read_text(encoding="utf-8").strip() if token_file else daemon.token
        shown = shown_daemon(stack, daemon.address, data_dir, demo=demo)
        settings = _settings(shown, daemon, listen, token, demo=demo, **others)

        def ready(url: str) -> None:
            stack.enter_context(shown.told(url))
            click.echo(f"dashboard: {url}")
            sys.stdout.flush()
            if opens:
                # A thread of its own: some browsers are waited for.
                threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()

        with reported(*_failures()):
            serve(settings, ready, parent=sys.stdin.fileno() if until_stdin_closes else None)


def _settings(
    shown: Shown,
    daemon: DaemonAddress,
    listen: str,
    token: str | None,
    *,
    demo: bool,
    allowed_hosts: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
) -> Settings:
    import mlrs
    from mlrs_web.settings import Settings

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.UsageError(f"--listen must be HOST:PORT, as {LISTEN}; is {listen!r}")
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    tls = mlrs.TLS(
        ca_file=daemon.ca_file,
        cert_file=daemon.cert_file,
        key_file=daemon.key_file,
        server_name=daemon.server_name,
    )
    settings = Settings(
        target=shown.target,
        address=shown.address,
        keeps_daemon=shown.is_ours,
        token=None if shown.is_ours else token,
        tls=tls if daemon.tls and not shown.is_ours else None,
        listen=listen,
        allowed_hosts=allowed_hosts,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        demo=demo,
    )
    _check_hosts(settings)
    return settings


def _check_hosts(settings: Settings) -> None:
    from mlrs_web.security.hosts import AllowedHostError, allowed_names

    try:
        allowed_names(settings)
    except AllowedHostError as error:
        raise click.BadParameter(str(error), param_hint="--allowed-host") from error


def _failures() -> tuple[type[Exception], ...]:
    """Return what may be wrong with where the dashboard is to listen."""
    import ssl

    from mlrs.errors import MlrsError
    from mlrs_web.security.exposure import ExposedError
    from mlrs_web.server import ListenError

    return ExposedError, ListenError, MlrsError, ssl.SSLError
