"""`mlrs runs list`."""

from __future__ import annotations

from itertools import islice
from typing import Literal, cast

import click

from mlrs_cli.root import DaemonAddress, connected, daemon_options
from mlrs_cli.runs.listing import FORMATS, print_runs
from mlrs_cli.runs.noting import Tag, tag_of

STATUS = click.Choice(["active", "diverged", "finished"])


@click.command("list")
@click.option("--prefix", default="", help="Only runs whose ids begin with this.")
@click.option("--contains", default="", help="Only runs whose ids contain this.")
@click.option("--status", type=STATUS, help="Only runs of this status.")
@click.option("--model", help="Only runs of this model: NAME, or NAME@DIGEST with at least 8 digits.")
@click.option("--task", help="Only runs of this task.")
@click.option(
    "--tag",
    "tags",
    metavar="NAME[=VALUE]",
    type=tag_of,
    multiple=True,
    help="Only runs with this tag, of this value if one is given; repeatable: with all of them.",
)
@click.option(
    "--order",
    "--sort",
    "order",
    type=click.Choice(["recent", "created", "id", "updated"]),
    default="recent",
    show_default=True,
    help="By the newest activity (`updated` is the same) or by creation, the last first, or by id.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="At most this many; 0: all."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="The format of the output.",
)
@daemon_options
def list_runs(
    prefix: str,
    contains: str,
    status: str | None,
    model: str | None,
    task: str | None,
    tags: tuple[Tag, ...],
    order: str,
    limit: int,
    format_: str,
    daemon: DaemonAddress,
) -> None:
    """List runs, those with the newest activity first.

    A table that goes to a pipe or a file is a line of headings and a line for each run, with tabs between the
    columns. JSON is one array, a line for each run, which holds what `show` prints. CSV and JSON have every
    digit, and times in UTC.

    \b
      mlrs runs list --status active
      mlrs runs list --tag team=vision --tag baseline --order created
      mlrs runs list --limit 0 --format csv > runs.csv
      mlrs runs list --format json | jq -r '.[].id'
    """
    wanted_order = "recent" if order == "updated" else order
    with connected(daemon) as advisor:
        found = advisor.runs(
            prefix,
            status,
            contains=contains,
            model=model,
            task=task,
            tags=dict(tags),
            order=cast("Literal['recent', 'created', 'id']", wanted_order),
            limit=limit + 1 if limit else None,
        )
        print_runs(islice(found, limit or None), format_)
        if limit and next(found, None) is not None:
            click.echo(f"only the first {limit} are shown; --limit 0 shows all", err=True)
