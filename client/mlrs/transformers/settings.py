"""How a trainer is advised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import mlrs
from mlrs.adapters import RunOptions


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The arguments of `advised`, which explains them."""

    task: str
    """The name of what is trained."""
    advisor: mlrs.Advisor | None = None
    """The daemon; `None`: the one that `mlrs.run` finds."""
    search: bool = True
    """Whether to search for the learning rate to begin with."""
    monitor: str | None = "eval_loss"
    """The metric of evaluations that is told as validation loss."""
    lagged: bool = False
    """Whether updates never wait for advice."""
    signals: bool = True
    """Whether measures of the optimizer's steps are sent."""
    options: RunOptions = field(default_factory=RunOptions)
    """Those of `Advisor.run`."""

    def run(self, **read: int | None) -> mlrs.Run:
        """Return a run, which is opened by its first step; `read`: options where the user gave none."""
        options: RunOptions = {**read, **self.options}  # type: ignore[typeddict-item] # an int for each
        return mlrs.run(self.task, advisor=self.advisor, **options)
