"""A run's search for the learning rate to begin with: the trials so far, and what they lead to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Self

from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.search import Found, SearchSetup, Trial, TrialResult, what_next
from mlrs_server.errors import SHOWN, AdvisorError, Reason, invalid_field

VERSION = 1
"""The version of the rules in `mlrs_core.search`. A search by rules of another version begins anew."""
_START = re.compile(r"[A-Za-z0-9-]{1,64}")


def check_start(start: str) -> str:
    """Return the name of a start.

    Raises:
        AdvisorError: it is malformed.
    """
    if not _START.fullmatch(start):
        raise invalid_field("start", f"must be 1 to 64 letters, digits and hyphens, is {start[:SHOWN]!r}")
    return start


@dataclass(frozen=True, kw_only=True)
class RecordedSearch:
    """A search as the store keeps it."""

    start: str
    """What the trials are made from and on, as the client names it."""
    setup: SearchSetup
    keep_policy: bool
    """Whether the run keeps its model or its schedule."""
    charge_steps: bool
    """Whether the trials' steps are part of the horizon."""
    min_lr: float = MIN_BASE_LR
    """The lowest learning rate that the run can begin with."""
    max_lr: float = MAX_BASE_LR
    """The highest one."""
    results: tuple[TrialResult, ...] = ()
    """The trials that were made, in order."""
    version: int = VERSION

    def next(self) -> Trial | Found:
        """Return the trial to make, or what was found: a learning rate within the bounds of the run."""
        following = what_next(self.setup, self.results)
        if isinstance(following, Trial):
            return following
        return replace(following, learning_rate=min(max(following.learning_rate, self.min_lr), self.max_lr))

    def with_result(self, number: int, loss: float, steps: int) -> Self:
        """Return the search with the result of a trial; itself, if it has that result already.

        Raises:
            AdvisorError: the result is of a trial that was not asked for, or not the one that is recorded.
        """
        loss = math.nan if math.isnan(loss) else loss  # a NaN has many bit patterns, and the record keeps one
        if 0 <= number < len(self.results):
            has = self.results[number]
            if steps == has.steps and (loss == has.loss or (math.isnan(loss) and math.isnan(has.loss))):
                return self
            raise AdvisorError(
                Reason.STALE_STEP,
                f"result: trial {number} is recorded with a loss of {has.loss} after {has.steps} steps, and "
                f"this result says {loss} after {steps}; begin another search, with a start of its own",
                field="result",
            )
        trial = self.next()
        if number != len(self.results) or isinstance(trial, Found):
            raise invalid_field(
                "result.number",
                f"is {number}, and {'no trial' if isinstance(trial, Found) else len(self.results)} is due; "
                "ask without a result which one is",
            )
        if not 0 <= steps <= trial.steps:
            raise invalid_field("result.steps", f"must be 0 to {trial.steps}, as asked for, is {steps}")
        made = TrialResult(learning_rate=trial.learning_rate, steps=steps, loss=loss)
        return replace(self, results=(*self.results, made))
