"""`mlrs stop`: the end of this user's daemon on this machine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from mlrs_cli.root import reported

LOOK_EVERY_S = 0.05


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
    from mlrs_server.system.data_folder import holder_of

    with reported(MlrsError):
        data_dir = local_place().data_dir
    holder = holder_of(data_dir)
    if holder is None:
        click.echo("no daemon of this user runs on this machine")
        return
    with reported(OSError):
        os.kill(holder, signal.SIGTERM)
    if not _has_ended(data_dir, holder, timeout_s):
        raise click.ClickException(
            f"process {holder} has not ended within {timeout_s:g} s; its data: {data_dir}"
        )
    click.echo(f"stopped (process {holder}); its data: {data_dir}")


def _has_ended(data_dir: Path, holder: int, timeout_s: float) -> bool:
    """Wait until a process holds the data no more; return whether that is so."""
    from mlrs_server.system.data_folder import holder_of

    until = time.monotonic() + timeout_s
    while holder_of(data_dir) == holder:
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_EVERY_S)
    return True
