"""Tables, for the terminal and for a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import table as rich_table
from rich.console import Console

WIDTH = 140
"""Characters across, where there is no terminal to ask."""


@dataclass(frozen=True)
class FigureTable:
    """A table: its columns' titles, the first over the rows' names, and its rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    """What to know to read it."""


def show(table: FigureTable) -> None:
    """Print a table."""
    drawn = rich_table.Table(
        title=table.title, caption=table.note or None, title_justify="left", caption_justify="left"
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        drawn.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(drawn)


def markdown(table: FigureTable) -> str:
    """Return a table as markdown, under its title."""
    rule = [":---", *["---:"] * (len(table.columns) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, rule, *table.rows)]
    note = f"\n{table.note}\n" if table.note else ""
    return f"### {table.title}\n\n" + "\n".join(lines) + "\n" + note


def number(value: float) -> str:
    """Return a number with about three digits that count."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(value: dict[str, float]) -> str:
    """Return a ratio with its quartiles over the rounds, if it has any."""
    if value["low"] == value["high"]:
        return f"{value['median']:.2f}"
    return f"{value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
