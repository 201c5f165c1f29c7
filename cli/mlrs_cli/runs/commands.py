"""`mlrs runs`: the runs of a daemon."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import IO, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import mlrs
from mlrs_cli.root import DaemonAddress, connected, daemon_options
from mlrs_cli.runs.deleting import Deletion, Selection, age, by_status, plural
from mlrs_cli.runs.list_command import STATUS, list_runs
from mlrs_cli.runs.listing import facts_of, print_runs
from mlrs_cli.runs.noting import note, tag, tags_text
from mlrs_cli.runs.pushing import push
from mlrs_cli.runs.searching import search
from mlrs_cli.text import shown
from mlrs_cli.values import or_dash, plain

WAIT_S = 0.5
"""How often `watch --wait` looks for the run."""
COLUMNS = ("step", "loss", "learning_rate", "reason")
"""The columns of an exported record."""


@click.group()
def runs() -> None:
    """List, show, follow, export and delete the runs of a daemon.

    A run is one training, known by its id. Its record holds each step's loss and advised learning rate.
    """


runs.add_command(list_runs)
runs.add_command(tag)
runs.add_command(note)
runs.add_command(push)
runs.add_command(search)


@runs.command()
@click.argument("run_id")
@daemon_options
def show(run_id: str, daemon: DaemonAddress) -> None:
    """Show a run's config, status and newest values as JSON.

    `export` writes its record.
    """
    with connected(daemon) as advisor:
        facts = facts_of(advisor.get_run(run_id))
    click.echo(json.dumps(facts, indent=2))


@runs.command()
@click.argument("run_id")
@click.option(
    "--wait",
    is_flag=True,
    help="Wait for the daemon to answer and the run to appear; without it, either is an error.",
)
@daemon_options
def watch(run_id: str, daemon: DaemonAddress, *, wait: bool) -> None:
    """Follow a run's step, loss and learning rate.

    It ends when the run is finished, or at Ctrl-C. A terminal shows one line that is kept up to date; a pipe
    or a file gets a new line each time that steps were stored.

    \b
      mlrs runs watch my-run
      mlrs runs watch my-run --wait
    """
    console = Console()
    with connected(daemon) as advisor, ExitStack() as stack:
        live = (
            stack.enter_context(Live(console=console, refresh_per_second=8)) if console.is_terminal else None
        )
        run = _awaited(advisor, run_id) if wait else advisor.get_run(run_id)
        start = max(run.next_step - 1, 0)
        for chunk in advisor.watch(run_id, from_step=start, follow=True):
            if live:
                live.update(_panel(chunk))
            elif chunk.losses:
                click.echo(_line(chunk))


@runs.command()
@click.argument("run_id")
@click.option(
    "--output",
    type=click.File("w", encoding="utf-8"),
    default="-",
    help="The file to write. [default: standard output]",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "jsonl"]),
    default="csv",
    show_default=True,
    help="CSV, or one JSON object a line.",
)
@click.option(
    "--from-step", type=click.IntRange(min=0), default=0, show_default=True, help="The first step to write."
)
@daemon_options
def export(run_id: str, output: IO[str], format_: str, from_step: int, daemon: DaemonAddress) -> None:
    """Write a run's record as CSV or JSON lines.

    There is one row for each step: the step, its loss, the learning rate that was advised, and the reason of
    the advice: `fresh`, or `held` where the loss was not finite and the learning rate stayed as it was. JSON
    lines also have the `signals` and the `validation` loss of the steps that came with some, `restore` where
    the advice asked to restore a saved state, and `restored` where the training has restored one before.

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
            extras = _extras(chunk)
            for row in _rows(chunk):
                if format_ == "csv":
                    writer.writerow(row)
                else:
                    facts = dict(zip(COLUMNS, map(plain, row), strict=True)) | extras.get(row[0], {})
                    output.write(json.dumps(facts) + "\n")


@runs.command()
@click.argument("run_ids", metavar="[RUN_ID]...", nargs=-1)
@click.option("--prefix", help="Select the runs whose ids begin with this.")
@click.option("--status", type=STATUS, help="Select the runs of this status.")
@click.option(
    "--older-than",
    type=age,
    help="Select runs without new observations for this long, such as 90min or 7d (s, min, h, d, w).",
)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@daemon_options
def delete(
    run_ids: tuple[str, ...],
    prefix: str | None,
    status: str | None,
    older_than: dt.timedelta | None,
    daemon: DaemonAddress,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete runs and their records, for good.

    Name the runs, or select those that meet every condition given. A selected run that no longer meets the
    conditions when its turn comes is kept, and a selected run that is gone by then is no error. Where a named
    run does not exist, the others are deleted and the exit status is 1.

    \b
      mlrs runs delete my-run
      mlrs runs delete --prefix sweep-7/ --status finished --dry-run
      mlrs runs delete --older-than 30d --yes
    """
    before = dt.datetime.now(dt.UTC) - older_than if older_than is not None else None
    selection = Selection(prefix, status, before)
    if prefix == "":
        raise click.UsageError("--prefix is empty, which would select every run")
    if bool(run_ids) == bool(selection):
        raise click.UsageError("name runs, or select them by --prefix, --status or --older-than: one of both")
    with connected(daemon) as advisor:
        if selection:
            _delete_selected(advisor, selection, dry_run=dry_run, yes=yes)
        else:
            _delete_named(advisor, dict.fromkeys(run_ids), dry_run=dry_run, yes=yes)


def _delete_selected(advisor: mlrs.Advisor, selection: Selection, *, dry_run: bool, yes: bool) -> None:
    """Delete runs that meet conditions, or show them."""
    found = selection.runs(advisor)
    if not found:
        click.echo("no run is selected", err=True)
    elif dry_run:
        print_runs(found, "table")
        click.echo(f"{plural(len(found))} would be deleted: {by_status(found)}", err=True)
    else:
        if not yes:
            click.confirm(f"Delete {plural(len(found))} ({by_status(found)}) for good?", abort=True)
        deletion = Deletion(advisor)
        try:
            deletion.selected(selection, found)
        finally:
            click.echo(deletion.summary(), err=True)


def _delete_named(advisor: mlrs.Advisor, run_ids: Collection[str], *, dry_run: bool, yes: bool) -> None:
    """Delete runs by id, or show them."""
    deletion = Deletion(advisor)
    if dry_run:
        print_runs(deletion.existing(run_ids), "table")
    else:
        if not yes:
            named = shown(next(iter(run_ids))) if len(run_ids) == 1 else plural(len(run_ids))
            click.confirm(f"Delete {named} for good?", abort=True)
        deletion.named(run_ids)
    if deletion.counts["gone"]:
        sys.exit(1)


def _awaited(advisor: mlrs.Advisor, run_id: str) -> mlrs.types.RunInfo:
    """Return a run once there is one of an id; say on standard error what is waited for."""
    said = ""
    while True:
        try:
            return advisor.get_run(run_id)
        except mlrs.errors.RunNotFoundError:
            waiting = f"waiting for run {run_id} to appear (Ctrl-C to stop)"
        except (mlrs.UnavailableError, mlrs.errors.DeadlineExceededError) as error:
            waiting = f"waiting until the daemon answers (Ctrl-C to stop): {error}"
        if waiting != said:
            click.echo(waiting, err=True)
            said = waiting
        time.sleep(WAIT_S)


def _rows(chunk: mlrs.types.RecordChunk) -> Iterator[tuple[int, float, float, str]]:
    columns = zip(chunk.losses, chunk.learning_rates, chunk.reasons, strict=True)
    for offset, (loss, lr, reason) in enumerate(columns):
        yield chunk.first_step + offset, loss, lr, reason.value


def _extras(chunk: mlrs.types.RecordChunk) -> dict[int, dict[str, Any]]:
    """Return what came with observations, and with their advice, besides numbers, by step, if any did."""
    found: dict[int, dict[str, Any]] = {}
    for signals in chunk.signals:
        known = {name: value for name, value in asdict(signals.signals).items() if not math.isnan(value)}
        found[signals.step] = {"signals": plain(known)}
    for told in chunk.validations:
        validation = {"step": told.step, "loss": told.loss}
        found.setdefault(told.observed_step, {})["validation"] = plain(validation)
    for name, steps in (("restore", chunk.restores), ("restored", chunk.restored)):
        for step in steps:
            found.setdefault(step, {})[name] = True
    return found


def _panel(chunk: mlrs.types.RecordChunk) -> Table:
    """Return a run at its newest step, on one line, with its tags, and its note below, if it has any."""
    run = chunk.run
    table = Table("run", "status", "step", "loss", "learning rate", "durable step")
    cells = [
        shown(run.id),
        run.status.value,
        str(run.next_step - 1) if run.next_step else "-",
        or_dash(run.last_loss, ".6g"),
        or_dash(run.last_learning_rate, ".6g"),
        str(run.durable_step),
    ]
    if run.tags:
        table.add_column("tags")
        cells.append(tags_text(run.tags))
    if run.note:
        table.caption = Text(shown(run.note, keep="\n"))
    table.add_row(*map(Text, cells))
    return table


def _line(chunk: mlrs.types.RecordChunk) -> str:
    """Return a run at its newest step as a line of text, for a pipe or a log."""
    run = chunk.run
    loss, lr = or_dash(run.last_loss, ".6g"), or_dash(run.last_learning_rate, ".6g")
    return f"{shown(run.id)} {run.status.value} step {run.next_step - 1} loss {loss} lr {lr}"
