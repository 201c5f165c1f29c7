"""The reduction of the losses of a run's ranks to one loss: no clock, event loop or runs.

The result depends only on which rank reported what, not on the order of arrival: ranks are reduced in the
order of their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mlrs_core.config import RankReduction, RanksConfig
from mlrs_server.domain.extras import Extras, agree, first_sent, is_sent, none_sent


@dataclass(frozen=True)
class Ranked:
    """The configuration of a run's ranks, and their number."""

    config: RanksConfig
    """With all defaults filled in."""
    world_size: int

    def least(self, *, late: bool) -> int:
        """Return how many reports complete a step; `late`: after the straggler timeout."""
        if not late:
            return self.world_size
        quorum = self.config.quorum or 1.0
        return max(math.ceil(quorum * self.world_size * (1 - 1e-12)), 1)  # 0.1 of 30 is 3, not 4


@dataclass(frozen=True)
class Report:
    """One rank's report of a step."""

    loss: float
    """Any value."""
    samples: float
    """The number of samples that the loss is the mean of; finite and > 0."""
    extras: Extras | None = None
    """The signals and the validation loss that came with it, (WIDTH,); `None`: there are none."""

    def repeats(self, other: Report) -> bool:
        """Return whether it is a report of before, sent again; NaNs are equal."""
        same = self.loss == other.loss or (math.isnan(self.loss) and math.isnan(other.loss))
        return same and self.samples == other.samples and self.agrees_with(other)

    def agrees_with(self, other: Report) -> bool:
        """Return whether the extras of a report of before are what comes now, as far as any come."""
        ours, theirs = (none_sent(1)[0] if one.extras is None else one.extras for one in (self, other))
        return bool(agree(theirs, ours))


def extras_of(reports: Mapping[int, Report]) -> Extras | None:
    """Return the extras of a step, (1, WIDTH); `None`: no rank has any.

    Its signals are those of the lowest rank that has signals, normally of rank 0, as under data parallelism
    all ranks make the same update. Its validation loss is that of the lowest rank that has one.
    """
    sent = [reports[rank].extras for rank in sorted(reports)]
    some = [extras for extras in sent if extras is not None and is_sent(extras[np.newaxis]).any()]
    return first_sent(some)[np.newaxis] if some else None


def reduced(reports: Mapping[int, Report], reduction: RankReduction | None) -> float:
    """Return the reduced loss of a step.

    Args:
        reports: by rank, at least one.
        reduction: the method; `None` is the mean.
    """
    in_order = [reports[rank] for rank in sorted(reports)]
    if reduction == RankReduction.MEDIAN:
        return _median(report.loss for report in in_order)
    return _mean(in_order)


def _mean(reports: Sequence[Report]) -> float:
    """Return sum(loss * samples) / sum(samples), both sums rounded once, as `math.fsum` does.

    One NaN makes it NaN, and so do infinities of both signs; infinities of one sign make it infinite.
    """
    if len(reports) == 1:
        return reports[0].loss
    odd = [report.loss for report in reports if not math.isfinite(report.loss)]
    if odd:
        total = sum(odd)
        return math.nan if math.isnan(total) else total
    try:
        mean = math.fsum(report.loss * report.samples for report in reports) / math.fsum(
            report.samples for report in reports
        )
    except (OverflowError, ValueError):  # of a sum, or of products that are infinite with both signs
        mean = math.nan
    return mean if math.isfinite(mean) else _exact_mean(reports)


def _exact_mean(reports: Sequence[Report]) -> float:
    """Return the mean where doubles overflow on the way to it; it is no larger than the largest loss."""
    total = sum(Fraction(report.loss) * Fraction(report.samples) for report in reports)
    return float(total / sum(Fraction(report.samples) for report in reports))


def _median(losses: Iterable[float]) -> float:
    """Return the median, of an even number the mean of the two in the middle; NaN is above all others."""
    ordered = sorted(losses, key=lambda loss: (math.isnan(loss), loss))
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    low, high = ordered[middle - 1], ordered[middle]
    mean = (low + high) / 2
    return low / 2 + high / 2 if math.isinf(mean) else mean
