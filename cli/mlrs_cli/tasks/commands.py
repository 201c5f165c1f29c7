"""`mlrs tasks`: what is remembered of the tasks of a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Column, Table
from rich.text import Text

from mlrs_cli.root import DaemonAddress, connected, daemon_options, print_table
from mlrs_cli.runs.deleting import plural
from mlrs_cli.tasks.curve import curve_lines
from mlrs_cli.tasks.showing import facts_lines, runs_table
from mlrs_cli.text import shown
from mlrs_cli.values import ago, plain

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with every digit.")


@click.group()
def tasks() -> None:
    """List, show and forget what is remembered of tasks.

    A task is what is trained. How its runs ended decides what its next run begins with.
    """


@tasks.command("list")
@json_option
@daemon_options
def list_tasks(daemon: DaemonAddress, *, as_json: bool) -> None:
    """List the tasks of which something is remembered, by name."""
    with connected(daemon) as advisor:
        found = list(advisor.tasks())
    if as_json:
        click.echo(json.dumps([plain(task) for task in found], indent=2))
        return
    table = Table(Column("task", overflow="fold"), "runs", "last ended")
    for task in found:
        table.add_row(Text(shown(task.name)), str(task.runs), ago(task.update_time))
    print_table(table)


@tasks.command()
@click.argument("name")
@json_option
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw the curve and the runs into this file; needs Matplotlib.",
)
@daemon_options
def show(name: str, daemon: DaemonAddress, *, as_json: bool, plot: Path | None) -> None:
    """Show how the runs of a task ended, and what the next one begins with.

    The newest runs come first, at most 100. The curve is what was fitted to them: how a run is expected to
    end, by the learning rate that it starts from.

    \b
      mlrs tasks show my-task
      mlrs tasks show my-task --plot my-task.png
      mlrs tasks show my-task --json | jq .next.why
    """
    with connected(daemon) as advisor:
        memory = advisor.task(name)
        if plot is not None:
            try:
                memory.plot(plot)
            except (OSError, ValueError) as error:  # ValueError: a suffix of no format
                raise click.ClickException(f"--plot: {plot}: {error}") from error
            click.echo(f"{plot}: the picture", err=as_json)
    if as_json:
        click.echo(json.dumps(plain(memory), indent=2))
        return
    print_table(runs_table(memory))
    for line in curve_lines(memory):
        click.echo(shown(line))
    for line in facts_lines(memory):
        click.echo(line)


@tasks.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Forget without asking.")
@daemon_options
def forget(name: str, daemon: DaemonAddress, *, yes: bool) -> None:
    """Forget how the runs of a task ended, for good.

    The next run of the task begins as its first one did. The runs and their records stay.

    \b
      mlrs tasks forget my-task
      mlrs tasks forget my-task --yes
    """
    with connected(daemon) as advisor:
        if not yes:
            known = plural(advisor.task(name).task.runs)
            click.confirm(f"Forget what is remembered of {shown(name)} ({known}) for good?", abort=True)
        click.echo(f"forgot {plural(advisor.forget_task(name))} of {shown(name)}")
