"""Lists of runs as text: a table for a terminal, and lines for other programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

import mlrs
from mlrs_cli.runs.noting import tags_text
from mlrs_cli.text import shown
from mlrs_cli.values import ago, or_dash, plain

HEADINGS = ("run", "status", "steps", "loss", "LR", "policy", "stored")
"""The columns of a table, for people. Tags follow; in a terminal, only where a run has some."""
COLUMNS = (
    "id",
    "status",
    "next_step",
    "durable_step",
    "horizon",
    "last_loss",
    "last_learning_rate",
    "policy",
    "create_time",
    "update_time",
    "tags",
    "note",
)
"""The columns of CSV, for programs: every digit, and times as ISO 8601."""
FORMATS = ("table", "json", "csv")


def print_runs(runs: Iterable[mlrs.types.RunInfo], format_: str) -> None:
    """Print runs as they come; only a terminal's table needs all of them first."""
    if format_ == "json":
        _print_array(json.dumps(facts_of(run)) for run in runs)
    elif format_ == "csv":
        _print_lines(COLUMNS, map(_values, runs), ",")
    elif (console := Console()).is_terminal:
        console.print(_table(list(runs)))
    else:
        _print_lines((*HEADINGS, "tags"), map(_cells, runs), "\t")


def _table(runs: Sequence[mlrs.types.RunInfo]) -> Table:
    """Return runs as a table for a terminal."""
    table = Table(Column(HEADINGS[0], overflow="fold"), *HEADINGS[1:])
    if any(run.tags for run in runs):
        table.add_column("tags", overflow="fold")
    for run in runs:
        table.add_row(*map(Text, _cells(run)[: len(table.columns)]))
    return table


def facts_of(run: mlrs.types.RunInfo) -> dict[str, Any]:
    """Return everything about a run but its record, for JSON."""
    return {name: plain(value) for name, value in vars(run).items()}


def _print_array(rows: Iterator[str]) -> None:
    """Print one JSON array, a line for each element."""
    sys.stdout.write("[")
    separator = "\n"
    for row in rows:
        sys.stdout.write(separator + row)
        separator = ",\n"
    sys.stdout.write("\n]\n")


def _print_lines(headings: Iterable[str], rows: Iterable[Iterable[Any]], delimiter: str) -> None:
    writer = csv.writer(sys.stdout, delimiter=delimiter, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)


def _cells(run: mlrs.types.RunInfo) -> tuple[str, ...]:
    """Return a run in the columns of `HEADINGS`, and its tags."""
    return (
        shown(run.id),
        run.status.value,
        str(run.next_step) + (f" / {run.config.horizon}" if run.config.horizon else ""),
        or_dash(run.last_loss, ".4g"),
        or_dash(run.last_learning_rate, ".4g"),
        shown(_policy(run.config)),
        ago(run.update_time),
        tags_text(run.tags),
    )


def _values(run: mlrs.types.RunInfo) -> tuple[Any, ...]:
    """Return a run in the columns of `COLUMNS`; text is as for a terminal, which the output may go to."""
    return (
        shown(run.id),
        run.status.value,
        run.next_step,
        run.durable_step,
        run.config.horizon,
        run.last_loss,
        run.last_learning_rate,
        shown(_policy(run.config)),
        run.create_time.isoformat(),
        run.update_time.isoformat(),
        json.dumps(dict(run.tags)),
        shown(run.note),
    )


def _policy(config: mlrs.types.RunConfig) -> str:
    """Return the name of a run's model or schedule."""
    return str(config.schedule.kind) if config.schedule else (config.model or "").partition("@")[0]
