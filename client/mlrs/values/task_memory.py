"""What is remembered of a task as a whole."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from mlrs.values.task_plot import drawn
from mlrs.values.task_types import Expected, Measure, PastRun, Recalled, TaskInfo


@dataclass(frozen=True, kw_only=True)
class TaskMemory:
    """What is remembered of a task, and what its next run would get."""

    task: TaskInfo
    """The task."""
    runs: tuple[PastRun, ...] = field(repr=False)
    """Its newest runs, at most 100, the newest first; those under way, too."""
    measure: Measure | None
    """The measure that counts: that of the newest run which ended. `None`: no run has one."""
    curve: tuple[Expected, ...] = field(repr=False)
    """The curve that was fitted to the runs, for the optimizer, the horizon and the batch size of the newest
    one, by policy and learning rate. Empty: too little is known."""
    best: Expected | None
    """The best known; `None`: none is."""
    next: Recalled | None
    """What a run like the newest one would be told, with `explore="careful"`."""
    next_arm: Expected | None = None
    """What it would begin with; `None`: the memory would decide nothing."""

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw how the runs ended over their learning rates, with the curve that was fitted to them.

        Args:
            path: the file to write, PNG or whatever its suffix says. Default: none is written.

        Returns:
            The Matplotlib figure: a panel of learning rates, and, where runs followed models, one of the
            octaves by which their learning rates were multiplied.

        Raises:
            UsageError: Matplotlib is not installed.
        """
        figure = drawn(self.runs, self.curve, self.best, self.next_arm, self.measure)
        figure.axes[0].set_title(self.task.name)
        if path is not None:
            figure.savefig(path)
        return figure
