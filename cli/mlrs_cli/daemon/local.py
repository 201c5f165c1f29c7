"""What is different for the daemon of one user on one machine, `mlrs serve --local`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from mlrs_cli.root import reported

EXIT_AFTER_IDLE_S = 600.0
"""How long it may be unused before it ends, in seconds, unless a flag says otherwise."""
FIXED = ("listen", "data_dir", "store", "advertise")
"""The options that it decides by itself."""


def local_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `--local` stands for; creates the folder of the socket.

    Raises:
        click.ClickException: there is no place for it, or another option contradicts it.
    """
    from mlrs.errors import MlrsError
    from mlrs.local.place import local_place

    for name in FIXED:
        if flags.get(name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"--local and {option} exclude each other: it has a place of its own")
    with reported(MlrsError):
        place = local_place()
    return {
        "listen": place.address,
        "data_dir": place.data_dir,
        "exit_after_idle_s": flags.get("exit_after_idle_s") or EXIT_AFTER_IDLE_S,
    }


@contextmanager
def told_starter(*, is_local: bool) -> Iterator[None]:
    """Tell the program that has started this user's daemon why it ends, on standard output.

    A daemon that ends because another one uses the data has an exit status of its own, so that the program
    looks for that one.
    """
    from mlrs.local.launching import TAKEN_STATUS
    from mlrs_server.system.data_folder import FolderTakenError

    try:
        yield
    except Exception as error:
        if is_local:
            with suppress(OSError):
                os.write(sys.stdout.fileno(), str(error).encode())
            if isinstance(error, FolderTakenError):
                click.echo(f"Error: {error}", err=True)
                sys.exit(TAKEN_STATUS)
        raise
