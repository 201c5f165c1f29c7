"""The root command, and what all commands share. Commands are imported when they are called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])
COMMANDS = {
    "serve": "mlrs_cli.serve",
    "runs": "mlrs_cli.runs",
    "models": "mlrs_cli.models",
    "store": "mlrs_cli.store",
    "train": "mlrs_cli.train",
    "bench": "mlrs_cli.bench",
}
"""The module of each command; the command has the module's last name."""
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

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # likewise
        """Return a command by name."""
        return load(cmd_name) if cmd_name in COMMANDS else None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mlrs"), prog_name="mlrs")
def mlrs() -> None:
    """An online learning-rate advisor.

    \b
    Start the daemon:          mlrs serve
    Look at its runs:          mlrs runs list
    Use it in training:        see `mlrs_client`; three lines
    """


def address_option(command: F) -> F:
    """Add `--address` to a command that talks to a daemon."""
    return click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        envvar="MLRS_ADDRESS",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="The daemon to ask.",
    )(command)


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
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


@contextmanager
def reported(*kinds: type[Exception]) -> Iterator[None]:
    """Turn exceptions of these kinds into the command's error message and status 1."""
    try:
        yield
    except kinds as error:
        raise click.ClickException(str(error)) from error
