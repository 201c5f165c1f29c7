"""`mlrs runs`: the runs of a daemon."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

import mlrs_client
from mlrs_cli.pushing import push
from mlrs_cli.root import DaemonAddress, connected, daemon_options, print_table

COLUMNS = ("step", "loss", "learning_rate", "reason")
"""The columns of an exported record."""


@click.group()
def runs() -> None:
    """List, show, follow, export and delete runs, and send what trainings could not tell of theirs."""


runs.add_command(push)


@runs.command("list")
@click.option("--prefix", default="", help="Only runs whose ids begin with this.")
@click.option(
    "--status", type=click.Choice(["active", "diverged", "finished"]), help="Only runs of this status."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most this many."
)
@daemon_options
def list_runs(prefix: str, status: str | None, limit: int, daemon: DaemonAddress) -> None:
    """List runs, ordered by id."""
    table = Table(Column("run", overflow="fold"), "status", "steps", "loss", "LR", "policy", "stored")
    with connected(daemon) as advisor:
        for number, run in enumerate(advisor.runs(prefix=prefix, status=status)):
            if number == limit:
                table.caption = f"the first {limit}; --limit, --prefix and --status choose others"
                break
            table.add_row(
                run.id,
                run.status.value,
                _steps(run),
                _or_dash(run.last_loss, ".4g"),
                _or_dash(run.last_learning_rate, ".4g"),
                _policy(run.config),
                _age(run.update_time),
            )
    print_table(table)


@runs.command()
@click.argument("run_id")
@daemon_options
def show(run_id: str, daemon: DaemonAddress) -> None:
    """Show everything about a run but its record, as JSON."""
    with connected(daemon) as advisor:
        facts = dataclasses.asdict(advisor.get_run(run_id))
    click.echo(json.dumps({name: _plain(value) for name, value in facts.items()}, indent=2))


@runs.command()
@click.argument("run_id")
@daemon_options
def watch(run_id: str, daemon: DaemonAddress) -> None:
    """Follow a run: its step, loss and learning rate, until it is finished (or Ctrl-C)."""
    console = Console()
    with connected(daemon) as advisor, ExitStack() as stack:
        live = (
            stack.enter_context(Live(console=console, refresh_per_second=8)) if console.is_terminal else None
        )
        start = max(advisor.get_run(run_id).next_step - 1, 0)
        for chunk in advisor.watch(run_id, from_step=start, follow=True):
            if live:
                live.update(_panel(chunk))
            elif chunk.losses:
                click.echo(_line(chunk))


@runs.command()
@click.argument("run_id")
@click.option(
    "--output", type=click.File("w", encoding="utf-8"), default="-", help="A file. [default: standard output]"
)
@click.option(
    "--format", "format_", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True, help="How."
)
@click.option("--from-step", type=click.IntRange(min=0), default=0, show_default=True, help="The first step.")
@daemon_options
def export(run_id: str, output: IO[str], format_: str, from_step: int, daemon: DaemonAddress) -> None:
    """Write a run's record: a line a step with its loss, its learning rate, and why.

    \b
      mlrs runs export my-run > my-run.csv
      mlrs runs export my-run --format jsonl --output my-run.jsonl
    """
    writer = csv.writer(output, lineterminator="\n")
    with connected(daemon) as advisor:
        advisor.get_run(run_id)  # before a line is written: there may be none
        if format_ == "csv":
            writer.writerow(COLUMNS)
        for chunk in advisor.watch(run_id, from_step=from_step):
            for row in _rows(chunk):
                if format_ == "csv":
                    writer.writerow(row)
                else:
                    output.write(json.dumps(dict(zip(COLUMNS, map(_plain, row), strict=True))) + "\n")


@runs.command()
@click.argument("run_ids", metavar="RUN_ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@daemon_options
def delete(run_ids: tuple[str, ...], daemon: DaemonAddress, *, yes: bool) -> None:
    """Delete runs and their records, for good."""
    if not yes:
        shown = run_ids[0] if len(run_ids) == 1 else f"{len(run_ids)} runs"
        click.confirm(f"Delete {shown} for good?", abort=True)
    with connected(daemon) as advisor:
        for run_id in run_ids:
            advisor.delete_run(run_id)
            click.echo(f"deleted {run_id}")


def _rows(chunk: mlrs_client.RecordChunk) -> Iterator[tuple[int, float, float, str]]:
    columns = zip(chunk.losses, chunk.learning_rates, chunk.reasons, strict=True)
    for offset, (loss, lr, reason) in enumerate(columns):
        yield chunk.first_step + offset, loss, lr, reason.value


def _panel(chunk: mlrs_client.RecordChunk) -> Table:
    """Return a run at its newest step, on one line."""
    run = chunk.run
    table = Table("run", "status", "step", "loss", "learning rate", "durable step")
    table.add_row(
        run.id,
        run.status.value,
        str(run.next_step - 1) if run.next_step else "-",
        _or_dash(run.last_loss, ".6g"),
        _or_dash(run.last_learning_rate, ".6g"),
        str(run.durable_step),
    )
    return table


def _line(chunk: mlrs_client.RecordChunk) -> str:
    """Return a run at its newest step as a line of text, for a pipe or a log."""
    run = chunk.run
    loss, lr = _or_dash(run.last_loss, ".6g"), _or_dash(run.last_learning_rate, ".6g")
    return f"{run.id} {run.status.value} step {run.next_step - 1} loss {loss} lr {lr}"


def _steps(run: mlrs_client.RunInfo) -> str:
    """Return how many steps were answered, of how many."""
    return str(run.next_step) + (f" / {run.config.horizon}" if run.config.horizon else "")


def _policy(config: mlrs_client.RunConfig) -> str:
    """Return the name of a run's model or schedule."""
    return str(config.schedule.kind) if config.schedule else (config.model or "").partition("@")[0]


def _age(time: dt.datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    seconds = max(0.0, (dt.datetime.now(dt.UTC) - time).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a non-finite number as a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
