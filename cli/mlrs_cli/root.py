"""The root command, and what all commands share. Commands are imported when they are called."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mlrs_cli.text import shown

if TYPE_CHECKING:
    from rich.table import Table

    import mlrs

F = TypeVar("F", bound=Callable[..., Any])
COMMANDS = {
    "serve": "mlrs_cli.daemon.serve",
    "dashboard": "mlrs_cli.dashboard.command",
    "runs": "mlrs_cli.runs.commands",
    "tasks": "mlrs_cli.tasks.commands",
    "models": "mlrs_cli.models.commands",
    "status": "mlrs_cli.daemon.status",
    "health": "mlrs_cli.daemon.health",
    "stop": "mlrs_cli.daemon.stop",
    "store": "mlrs_cli.daemon.store",
    "tokens": "mlrs_cli.daemon.tokens",
    "train": "mlrs_cli.train",
    "bench": "mlrs_cli.bench.commands",
}
"""The module of each command, in which the command has its name."""
PIPE_WIDTH = 400
"""The width of tables that are not for a terminal, in characters."""
DEFAULT_ADDRESS = "127.0.0.1:50051"


def load(name: str) -> click.Command:
    """Return a command by name."""
    command: click.Command = getattr(importlib.import_module(COMMANDS[name]), name)
    return command


class LazyGroup(click.Group):
    """A group whose commands are imported when they are wanted: `mlrs --help` loads none of torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names of the commands, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # its signature is click's
        """Return a command by name."""
        return load(cmd_name) if cmd_name in COMMANDS else None


@click.group("mlrs", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mlrs"), prog_name="mlrs")
def command() -> None:
    """An online learning-rate advisor.

    \b
    Use it in training:        three lines (README); your machine's daemon starts by itself
    Look at its runs:          mlrs runs list, or mlrs dashboard
    Stop it:                   mlrs stop
    Start one for others:      mlrs serve
    """


@dataclass(frozen=True, kw_only=True)
class DaemonAddress:
    """Where a daemon is, and how to be let in."""

    address: str
    token: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None


def default_address() -> str:
    """Return the address of this user's daemon on this machine if it runs, else that of `mlrs serve`."""
    from mlrs.errors import UnavailableError
    from mlrs.local.place import local_place
    from mlrs.local.starting import running_at

    try:
        return running_at(local_place()) or DEFAULT_ADDRESS
    except UnavailableError:  # there is no place for one
        return DEFAULT_ADDRESS


def daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--address` and how to be let in to a command that talks to a daemon, as its `daemon`."""
    address = click.option(
        "--address",
        default=default_address,
        envvar="MLRS_TARGET",
        show_default=f"this user's daemon if it runs, else {DEFAULT_ADDRESS}",
        show_envvar=True,
        metavar="HOST:PORT",
        help="The daemon's address: HOST:PORT, or unix:PATH.",
    )
    return address(access_options(command))


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add how to be let in to a command with an `--address`, as its `daemon`; its address may be ""."""

    @functools.wraps(command)
    def with_daemon(*, address: str | None, token: str | None, tls: bool, **others: Any) -> Any:
        settings = {name: others.pop(name) for name in ("ca_file", "cert_file", "key_file", "server_name")}
        tls = tls or any(settings.values())
        daemon = DaemonAddress(address=address or "", token=token, tls=tls, **settings)
        return command(daemon=daemon, **others)

    pem = click.Path(exists=True, dir_okay=False, path_type=Path)
    options = [
        click.option(
            "--token",
            envvar="MLRS_TOKEN",
            show_envvar=True,
            help="An access token, if the daemon has tokens.",
        ),
        click.option(
            "--tls",
            is_flag=True,
            help="Encrypt the connection with TLS. Each of the options below implies it.",
        ),
        click.option(
            "--ca-file", type=pem, help="The certificate authority to trust for the daemon, as PEM."
        ),
        click.option("--cert-file", type=pem, help="The client's own certificate, as PEM (mutual TLS)."),
        click.option("--key-file", type=pem, help="The private key of --cert-file, as PEM."),
        click.option(
            "--server-name", help="The name in the daemon's certificate, if it is not that of the address."
        ),
    ]
    for option in reversed(options):
        with_daemon = option(with_daemon)
    return with_daemon


@contextmanager
def connected(daemon: DaemonAddress) -> Iterator[mlrs.Advisor]:
    """Connect to a daemon; what goes wrong is the command's error message."""
    import mlrs

    client: Any = mlrs
    options: dict[str, Any] = {} if daemon.token is None else {"token": daemon.token}
    if daemon.tls:
        options["tls"] = client.TLS(
            ca_file=daemon.ca_file,
            cert_file=daemon.cert_file,
            key_file=daemon.key_file,
            server_name=daemon.server_name,
        )
    with reported(mlrs.MlrsError), client.connect(daemon.address, **options) as advisor:
        yield advisor


def data_dir_option(command: F) -> F:
    """Add `--data-dir` to a command that works beside a daemon, on its files."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="MLRS_DATA_DIR",
        show_envvar=True,
        help="The daemon's data folder. Default: the platform's state folder.",
    )(command)


def print_table(table: Table) -> None:
    """Print a table; into a pipe, wide enough to cut nothing."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


@contextmanager
def reported(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these kinds into the command's error message and status 1."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(shown(str(error), keep="\n")) from error
