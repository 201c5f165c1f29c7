"""`mlrs stop`: the end of this user's daemon on this machine."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable

import click

from mlrs_cli.root import reported

LOOK_EVERY_S = 0.05
UNIX = "unix:"


@click.command()
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.0, min_open=True),
    default=20.0,
    show_default=True,
    help="How long to wait for its end.",
)
def stop(timeout_s: float) -> None:
    """Stop the daemon of this user, which `mlrs serve --local` or a training started.

    Trainings that it advises go on with their fallback, and start it again when they next need it. Nothing is
    lost: every run is stored before the daemon ends.
    """
    from mlrs.errors import MlrsError
    from mlrs.local.place import local_place
    from mlrs.local.starting import running_at

    with reported(MlrsError):
        place = local_place()
    address = running_at(place)
    if address is None:
        click.echo("no daemon of this user runs on this machine")
        return
    with reported(OSError):
        process = _listener_of(address.removeprefix(UNIX))
        has_ended = _watched(process)
        os.kill(process, signal.SIGTERM)
    until = time.monotonic() + timeout_s
    while not has_ended():
        if time.monotonic() >= until:
            raise click.ClickException(f"process {process} has not ended within {timeout_s:g} s: {address}")
        time.sleep(LOOK_EVERY_S)
    click.echo(f"stopped (process {process}); its data: {place.data_dir}")


def _watched(process: int) -> Callable[[], bool]:
    """Return a function that says whether a process that runs now has ended."""
    if hasattr(os, "pidfd_open"):  # which also knows a process that has ended and was not waited for
        descriptor = os.pidfd_open(process)
        return lambda: bool(select.select([descriptor], [], [], 0)[0])

    def has_ended() -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        return False

    return has_ended


def _listener_of(path: str) -> int:
    """Return the id of the process that listens on a unix socket, as the system knows it.

    Raises:
        OSError: nobody listens there any more.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        if sys.platform == "darwin":
            local, peer_pid = 0, 2  # SOL_LOCAL, LOCAL_PEERPID
            return int.from_bytes(connection.getsockopt(local, peer_pid, 4), sys.byteorder)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])
