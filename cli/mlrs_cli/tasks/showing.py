"""What is remembered of a task as text: its runs, the best known, and what the next run gets."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Column, Table
from rich.text import Text

from mlrs.types import Ending, Expected, Measure, PastRun, TaskMemory
from mlrs_cli.text import shown
from mlrs_cli.values import ago

ENDINGS = {
    Ending.REACHED: "reached its horizon",
    Ending.DIVERGED: "diverged",
    Ending.STOPPED: "stopped early",
    Ending.UNDER_WAY: "under way",
}
"""What each ending is called."""


def runs_table(memory: TaskMemory) -> Table:
    """Return a table of the runs, the newest first."""
    measure = "measure" if memory.measure is None else memory.measure.words
    table = Table(
        Column("run", overflow="fold"), "ended", "policy", "learning rate", "batch size", "how", measure
    )
    for run in memory.runs:
        table.add_row(*(Text(shown(cell)) for cell in _cells(run, memory.measure)))
    return table


def facts_lines(memory: TaskMemory) -> Iterator[str]:
    """Yield what is known best, and what the next run gets and why, a line each."""
    if memory.best is not None:
        yield f"best known: {shown(expected_text(memory.best))}"
    if memory.next is not None:
        yield f"next run like the newest one: {shown(str(memory.next))}"


def expected_text(expected: Expected) -> str:
    """Return a learning rate and what is expected of it, in words."""
    start = _start(expected.policy, expected.learning_rate, expected.lr_offset)
    return f"{start}; expected to end at {expected.value:.4g}, {expected.low:.4g} to {expected.high:.4g}"


def _start(policy: str, learning_rate: float | None, lr_offset: float) -> str:
    if learning_rate is None:
        return f"{policy}, its learning rates times 2**{lr_offset:.3g}"
    return f"{policy} from a learning rate of {learning_rate:.4g}"


def _cells(run: PastRun, measure: Measure | None) -> tuple[str, ...]:
    """Return a run in the columns of the table."""
    rate = f"x 2**{run.lr_offset:.3g}" if run.learning_rate is None else f"{run.learning_rate:.4g}"
    value = run.measured(measure)
    return (
        run.id,
        "-" if run.ending == Ending.UNDER_WAY else ago(run.time),
        run.policy,
        f"{rate}, searched" if run.searched else rate,
        "-" if run.batch_size is None else str(run.batch_size),
        "-" if run.ending is None else ENDINGS[run.ending],
        "-" if value is None else f"{value:.4g}",
    )
