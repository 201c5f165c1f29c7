"""`mlrs runs search`: how a run found the learning rate that it began with."""

from __future__ import annotations

import math
from pathlib import Path

import click
from rich.table import Table

import mlrs
from mlrs_cli.root import DaemonAddress, connected, daemon_options, print_table


@click.command()
@click.argument("run_id")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw the trials into this file; needs Matplotlib.",
)
@daemon_options
def search(run_id: str, daemon: DaemonAddress, *, plot: Path | None) -> None:
    """Show the trials of a run's search, and the learning rate that they led to.

    A search makes a few short trials before the first step, from the same weights and on the same batches. It
    finds where the loss after them is least, and from that the learning rate of the whole training.

    \b
      mlrs runs search my-run
      mlrs runs search my-run --plot trials.png
    """
    with connected(daemon) as advisor:
        made = advisor.get_search(run_id)
    table = Table("learning rate", "steps", "loss after")
    for one in made.trials:
        loss = f"{one.loss:.4g}" if math.isfinite(one.loss) else "diverged"
        rate = f"{one.learning_rate:.3g}" if one.steps else "at the start"
        table.add_row(rate, str(one.steps), loss)
    print_table(table)
    found = made.next if isinstance(made.next, mlrs.types.FoundRate) else None
    if found is None:
        click.echo(f"under way: {len(made.trials)} trials were made", err=True)
    else:
        click.echo(
            f"begins at {found.learning_rate:.4g}, within {found.octaves:.1f} octaves; {found.steps} steps"
        )
    if made.attempt > 1:
        click.echo(f"the run began {made.attempt} searches; this is the last", err=True)
    if plot is not None:
        result = mlrs.SearchResult(learning_rate=found.learning_rate if found else None, trials=made.trials)
        result.plot(plot)
