"""Warnings about a run's observations, each logged once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlrs.ledger.entries import Observed
from mlrs.values.types import RunConfig

NEVER = 2**63
"""A step that no run reaches."""


class Remarks:
    """The warnings about the losses of one run, or of the runs of a sweep.

    Attributes:
        horizon: the first step past the horizon; `NEVER` after its warning, or without a horizon.
        wants_finite: whether there was no warning about a loss that is not finite yet.
        news: the warnings to log.
    """

    def __init__(self, label: str, run_ids: Sequence[str], configs: Sequence[RunConfig]) -> None:
        self._label = label
        self._run_ids = run_ids
        self._min_lr = configs[0].min_lr or 0.0
        self._has_passed = False
        self.horizon = NEVER
        self.wants_finite = True
        self.news: list[str] = []
        self.resolved(configs)

    def resolved(self, configs: Sequence[RunConfig]) -> None:
        """Enter the configs of the runs, each of which may have a horizon."""
        if not self._has_passed:
            known = [config.horizon for config in configs if config.horizon is not None]
            self.horizon = min([self.horizon, *known])

    def silence(self) -> None:
        """Give no warnings."""
        self._has_passed, self.horizon, self.wants_finite = True, NEVER, False

    def see(self, entry: Observed) -> None:
        """Check an observation; called for each one."""
        if self.wants_finite and not entry.is_finite:
            self.wants_finite = False
            self.news.append(f"{self._label}: {self._not_finite(entry)}")
        if entry.step >= self.horizon:
            self.news.append(f"{self._label}: {self._past(entry)}")
            self._has_passed, self.horizon = True, NEVER

    def _past(self, entry: Observed) -> str:
        return (
            f"step {entry.step} is past the horizon of {self.horizon} steps; the advice from here on is"
            " that of the schedule's end. Give horizon= all the steps of the training"
        )

    def _not_finite(self, entry: Observed) -> str:
        bad = [index for index, loss in enumerate(entry.losses) if not math.isfinite(loss)]
        if len(self._run_ids) > 1:
            return (
                f"{len(bad)} of the {len(self._run_ids)} losses of step {entry.step} are not finite, the"
                f" first of run {self._run_ids[bad[0]]!r}; the last learning rate of such a run is held until"
                " its loss is finite again"
            )
        (loss,) = entry.losses
        if entry.step == 0:
            return (
                f"the loss of its first step is {loss}. There is no learning rate yet that could be held, so"
                f" the learning rate is {self._min_lr:g} until a loss is finite: look at the data, the loss"
                " and its precision"
            )
        return (
            f"the loss of step {entry.step} is {loss}; the last learning rate is held until a loss is finite"
            " again"
        )
