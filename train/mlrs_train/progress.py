"""The progress bar of a training: steps, time left, and the last loss and LR of each task."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlrs_train.method import LogRecord

SHOWN = {
    "train_loss": "loss",
    "learning_rate": "lr",
    "to_default": "ln(loss / default cosine's)",
    "held_out_to_best": "held out: ln(loss / best schedule's)",
}
"""What is shown of a record, and how it is called."""


class ProgressBar:
    """A bar on a terminal, and a line per task below it. A context manager."""

    def __init__(self, console: Console, *, total: int, done: int) -> None:
        """Build a bar that starts at `done` of `total` steps."""
        self._progress = Progress(
            TextColumn("[bold]meta-training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
            TimeRemainingColumn(),
            speed_estimate_period=300,  # updates differ in length; by default it looks back 30 s
            console=console,
        )
        self._bar = self._progress.add_task("", total=total, completed=done)
        self._lines: dict[str, Text] = {}
        self._live = Live(self._progress, console=console, refresh_per_second=5)

    def step(self, record: LogRecord | None, *, total: int) -> None:
        """Move on by a step, of so many as are now expected; show its record if there is one."""
        self._progress.update(self._bar, advance=1, total=total)
        if record is not None:
            values = ((label, record.values.get(name)) for name, label in SHOWN.items())
            shown = "  ".join(f"{label} {value:.4g}" for label, value in values if value is not None)
            position = f"step {record.step}" if record.epoch is None else f"epoch {record.epoch}"
            self._lines[record.task] = Text(f"  {record.task}: {position}  {shown}", style="cyan")
            self._live.update(Group(self._progress, *self._lines.values()))

    def __enter__(self) -> Self:
        """Show the bar."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._live.stop()
        if not self._live.console.is_terminal:
            self._live.console.print()  # where nothing is live, the last line is left open
