"""The reduction of the losses of ranks."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import DEFAULT_RANKS, RankReduction, RanksConfig
from mlrs_server.domain.rank_reduction import Ranked, Report, reduced

MEAN, MEDIAN = RankReduction.MEAN, RankReduction.MEDIAN
LOSSES = st.floats(allow_nan=True, allow_infinity=True)
SAMPLES = st.floats(min_value=1e-6, max_value=1e9)
REPORTS = st.dictionaries(st.integers(0, 300), st.builds(Report, LOSSES, SAMPLES), min_size=1, max_size=20)


def reports_of(*losses: float) -> dict[int, Report]:
    """Return the reports of ranks from 0 on, of one sample each."""
    return {rank: Report(loss, 1.0) for rank, loss in enumerate(losses)}


@given(reports=REPORTS, order=st.randoms(use_true_random=False), how=st.sampled_from(RankReduction))
def test_the_order_of_arrival_changes_no_bit(
    reports: dict[int, Report], order: object, how: RankReduction
) -> None:
    """The loss has the same bits in any order of arrival of the reports."""
    shuffled = list(reports.items())
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    assert reduced(dict(shuffled), how).hex() == reduced(reports, how).hex()


@given(reports=REPORTS)
def test_a_mean_is_the_exact_one_to_a_few_units(reports: dict[int, Report]) -> None:
    """The weighted mean of finite losses is that of exact fractions, however large or small they are."""
    finite = {rank: report for rank, report in reports.items() if math.isfinite(report.loss)}
    if not finite:
        return
    whole = sum((Fraction(report.samples) for report in finite.values()), Fraction(0))
    exact = (
        sum((Fraction(report.loss) * Fraction(report.samples) for report in finite.values()), Fraction(0))
        / whole
    )
    size = max(abs(Fraction(report.loss)) for report in finite.values())
    assert abs(Fraction(reduced(finite, MEAN)) - exact) <= size / 2**50 + Fraction(1, 2**1000)


def test_a_mean_counts_samples() -> None:
    """A rank with three times the samples counts three times; half a batch at the end counts half."""
    assert reduced({0: Report(1.0, 3.0), 1: Report(5.0, 1.0)}, MEAN) == 2.0


def test_one_rank_is_unchanged() -> None:
    """The mean of one rank is its loss, to the bit, whatever its sample count."""
    assert reduced({0: Report(0.1, 3.0)}, MEAN) == 0.1


def test_nan_makes_the_mean_nan() -> None:
    """One NaN, or infinities of both signs, make the mean NaN; of one sign they make it infinite."""
    assert math.isnan(reduced(reports_of(1.0, math.nan, 2.0), MEAN))
    assert math.isnan(reduced(reports_of(math.inf, -math.inf), MEAN))
    assert reduced(reports_of(1.0, -math.inf), MEAN) == -math.inf


def test_a_mean_of_huge_losses_is_finite() -> None:
    """Sums that overflow do not make the mean of finite losses infinite."""
    assert reduced(reports_of(1.7e308, 1.7e308), MEAN) == 1.7e308
    assert math.isfinite(reduced({0: Report(1e308, 1e9), 1: Report(-1e308, 1.0)}, MEAN))


def test_a_median_puts_nan_above_all() -> None:
    """A NaN counts as the largest loss, so a minority of them is outvoted; ranks count once each."""
    assert reduced(reports_of(1.0, math.nan, 2.0), MEDIAN) == 2.0
    assert reduced(reports_of(math.nan, 4.0, 1.0, 2.0), MEDIAN) == 3.0
    assert math.isnan(reduced(reports_of(math.nan, 1.0), MEDIAN))
    assert reduced({0: Report(1.0, 1.0), 1: Report(2.0, 1.0), 2: Report(9.0, 1e6)}, MEDIAN) == 2.0
    assert reduced(reports_of(1.7e308, 1.7e308), MEDIAN) == 1.7e308


def test_a_quorum_is_rounded_up() -> None:
    """A quorum of half of five is three, of a tenth of thirty is three, and at least one is needed."""

    def least(quorum: float, world_size: int) -> int:
        config = RanksConfig(quorum=quorum).completed_by(DEFAULT_RANKS)
        return Ranked(config, world_size).least(late=True)

    assert [least(0.5, 5), least(0.1, 30), least(0.01, 2), least(1.0, 7)] == [3, 3, 1, 7]
    assert Ranked(DEFAULT_RANKS, 5).least(late=False) == 5
