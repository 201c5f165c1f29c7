"""`mlrs runs tag` and `mlrs runs note`: what people note of runs."""

from __future__ import annotations

from collections.abc import Mapping

import click

from mlrs_cli.root import DaemonAddress, connected, daemon_options
from mlrs_cli.text import shown

Tag = tuple[str, str]
"""The name and the value of a tag."""


def tag_of(text: str) -> Tag:
    """Return the tag in `NAME=VALUE`, or in `NAME`, whose value is empty.

    Raises:
        click.BadParameter: there is no name.
    """
    name, _, value = text.partition("=")
    if not name:
        raise click.BadParameter(f"{text!r} names no tag; write NAME=VALUE, or NAME")
    return name, value


def tags_text(tags: Mapping[str, str]) -> str:
    """Return tags on one line, by name, as text for a terminal."""
    return " ".join(shown(f"{name}={value}" if value else name) for name, value in sorted(tags.items()))


@click.command()
@click.argument("run_id")
@click.argument("tags", metavar="[NAME=VALUE]...", type=tag_of, nargs=-1)
@click.option("--remove", metavar="NAME", multiple=True, help="Remove the tag of this name; repeatable.")
@daemon_options
def tag(run_id: str, tags: tuple[Tag, ...], remove: tuple[str, ...], daemon: DaemonAddress) -> None:
    """Set and remove tags of a run, and show those that it has then, a line each.

    A tag is a name and a value, which may be empty. `mlrs runs list --tag` lists the runs that have one. Tags
    do not influence advice.

    \b
      mlrs runs tag my-run team=vision baseline
      mlrs runs tag my-run --remove baseline
    """
    if not tags and not remove:
        raise click.UsageError("name tags to set, or to --remove")
    with connected(daemon) as advisor:
        run = advisor.update_run(run_id, set_tags=dict(tags), remove_tags=remove)
    for name, value in sorted(run.tags.items()):
        click.echo(shown(f"{name}={value}"))


@click.command()
@click.argument("run_id")
@click.argument("text")
@daemon_options
def note(run_id: str, text: str, daemon: DaemonAddress) -> None:
    """Put a note on a run; an empty TEXT removes it.

    `mlrs runs show` shows it.

    \b
      mlrs runs note my-run "the baseline of March, with the old data"
      mlrs runs note my-run ""
    """
    with connected(daemon) as advisor:
        run = advisor.update_run(run_id, note=text)
    click.echo(f"{shown(run.id)}: {shown(run.note)}" if run.note else f"{shown(run.id)} has no note")
