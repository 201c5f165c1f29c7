"""`mlrs runs push`: what trainings could not tell a daemon before they ended."""

from __future__ import annotations

from pathlib import Path

import click

from mlrs_cli.root import DaemonAddress, connected, daemon_options

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--id", "run_id", help="Another id for the run, if its own was taken meanwhile.")
@click.option("--keep", is_flag=True, help="Do not remove the files.")
@click.option(
    "--rewind",
    is_flag=True,
    help="Drop what the daemon has of the runs from a file's first step on, where they went on otherwise.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0.0, min_open=True),
    default=60.0,
    show_default=True,
    help="How long a file may take, in seconds.",
)
@daemon_options
def push(
    *,
    files: tuple[Path, ...],
    run_id: str | None,
    keep: bool,
    rewind: bool,
    timeout_s: float,
    daemon: DaemonAddress,
) -> None:
    """Send what trainings left in files because no daemon answered.

    A training that ends while its daemon is away writes what the daemon lacks into a file, and logs its name
    and the daemon's address. What the daemon has already changes nothing, so that a push may be tried again.
    A file is removed once everything in it is stored. Of several files each is tried; the exit status is 1
    if one could not be sent.
    """
    import mlrs

    if run_id is not None and len(files) > 1:
        raise click.UsageError("--id names one run; push one file at a time with it")
    failed = 0
    with connected(daemon) as advisor:
        for file in files:
            try:
                runs = advisor.push(file, id=run_id, keep=keep, rewind=rewind, timeout_s=timeout_s)
            except mlrs.MlrsError as error:
                failed += 1
                click.echo(f"{file}: {error}", err=True)
                continue
            which = f"run {runs[0].id}" if len(runs) == 1 else f"{len(runs)} runs from {runs[0].id} on"
            click.echo(f"{which}: at step {min(run.next_step for run in runs)}, {runs[0].status.value}")
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files could not be sent, and stay")
