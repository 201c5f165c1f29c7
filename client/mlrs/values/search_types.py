"""What a search for the learning rate to begin with is made of: trials, and what they led to."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

from mlrs.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FoundRate:
    """The learning rate that a search found."""

    learning_rate: float
    """The learning rate to begin the run with."""
    octaves: float
    """How far from the best one it may be: a standard deviation, in octaves (factors of two)."""
    steps: int
    """The updates that all trials made together."""
    charged: bool
    """Whether these are part of the run's horizon."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial to make: the learning rate of update i is `learning_rate * (1 - i / steps)`."""

    number: int
    """Its number, from 0."""
    learning_rate: float
    """The learning rate of its first update."""
    steps: int
    """The number of updates; 0: only the loss at the start is measured."""

    def rate(self, update: int) -> float:
        """Return the learning rate of an update, from 0."""
        return self.learning_rate * (1.0 - update / self.steps)


@dataclass(frozen=True, slots=True)
class FinishedTrial:
    """A trial that was made."""

    learning_rate: float
    """The learning rate of its first update."""
    steps: int
    """The updates that were made: fewer than asked for if it diverged. 0: the loss at the start."""
    loss: float
    """The mean loss after it, on batches that all trials share; not finite: it diverged."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The daemon's report of a search."""

    start: str
    """What the trials are made from and on."""
    attempt: int
    """How many searches the run has begun, this one included."""
    trials: tuple[FinishedTrial, ...] = field(repr=False)
    """The trials that were made, in order."""
    next: Trial | FoundRate
    """The trial to make, or what was found."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search led to."""

    learning_rate: float | None
    """The learning rate that the run begins with; `None`: no search was made."""
    octaves: float = math.nan
    """How far from the best one it may be: a standard deviation, in octaves (factors of two)."""
    steps: int = 0
    """The updates that all trials made together."""
    trials: tuple[FinishedTrial, ...] = field(default=(), repr=False)
    """The trials, in the order in which they were made."""
    why_not: str = ""
    """Why no search was made; empty: one was."""

    def __str__(self) -> str:
        """Return the result in one line."""
        if self.learning_rate is None:
            return f"no search: {self.why_not}"
        return (
            f"begins at a learning rate of {self.learning_rate:.3g}, within {self.octaves:.1f} octaves;"
            f" {sum(one.steps > 0 for one in self.trials)} trials, {self.steps} steps"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the loss after each trial over its learning rate, and the learning rate that was found.

        Args:
            path: the file to write, PNG or whatever its suffix says. Default: none is written.

        Returns:
            The Matplotlib figure.

        Raises:
            UsageError: Matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise UsageError("plot needs Matplotlib: pip install matplotlib") from error
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        axes = figure.subplots()
        made = [one for one in self.trials if one.steps > 0]
        known = sorted((one.learning_rate, one.loss) for one in made if math.isfinite(one.loss))
        axes.semilogx([rate for rate, _ in known], [loss for _, loss in known], "o-", label="trials")
        for one in self.trials:
            if one.steps == 0:
                axes.axhline(one.loss, color="C7", linestyle="--", label="at the start")
            elif not math.isfinite(one.loss):
                axes.axvline(one.learning_rate, color="C3", linestyle=":", label="diverged")
        if self.learning_rate is not None:
            axes.axvline(self.learning_rate, color="C2", label=f"found: {self.learning_rate:.3g}")
        axes.set_xlabel("learning rate of a trial's first update")
        axes.set_ylabel("loss after the trial")
        handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        axes.legend(handles.values(), handles.keys())
        if path is not None:
            figure.savefig(path)
        return figure
