"""How good runs came out, told when they are finished, for the memory of their tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How good the runs of a ledger came out."""

    metrics: tuple[float, ...] = ()
    """The caller's measure, one for each run, or none at all; NaN: this run has none."""
    higher_is_better: bool = False
    """Whether a higher metric is better."""
    validation_loss: float | None = None
    """The newest validation loss of a single run, where no observation has carried it."""

    def of(self, run_ids: Sequence[str]) -> tuple[list[tuple[str, float]], list[str]]:
        """Return the runs that have a metric, each with it, and those that have none."""
        metrics = self.metrics or (math.nan,) * len(run_ids)
        pairs = list(zip(run_ids, metrics, strict=True))
        return (
            [(run_id, metric) for run_id, metric in pairs if not math.isnan(metric)],
            [run_id for run_id, metric in pairs if math.isnan(metric)],
        )
