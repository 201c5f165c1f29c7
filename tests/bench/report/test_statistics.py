"""Interquartile means, paired outcomes and the stratified bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from scipy import stats

from mlrs_bench.report.figures.bootstrap import stratified_estimate
from mlrs_bench.report.figures.statistics import Outcome, interquartile_mean, outcome

scores = st.floats(-1e3, 1e3)


def arrays(size: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    """Return arrays of scores."""
    return size.flatmap(lambda n: nps.arrays(np.float64, n, elements=scores))


def iqm(values: np.ndarray) -> float:
    """Return the interquartile mean with equal weights."""
    return float(interquartile_mean(values, np.ones(values.shape[-1])))


@given(value=scores, weights=nps.arrays(np.float64, 7, elements=st.floats(0.1, 10.0)))
def test_iqm_of_constants(value: float, weights: np.ndarray) -> None:
    """The interquartile mean of equal values is that value, whatever their weights."""
    assert float(interquartile_mean(np.full(7, value), weights)) == pytest.approx(value)


@given(values=arrays(st.integers(1, 8).map(lambda n: 4 * n)))
def test_iqm_is_the_trimmed_mean(values: np.ndarray) -> None:
    """With equal weights and a number of values that four divides, it is SciPy's trimmed mean."""
    assert iqm(values) == pytest.approx(float(stats.trim_mean(values, 0.25)), abs=1e-6)


@given(data=st.data(), values=arrays(st.integers(1, 20)))
def test_iqm_knows_no_order(data: st.DataObject, values: np.ndarray) -> None:
    """Values in another order have the same interquartile mean."""
    order = np.array(data.draw(st.permutations(range(values.size))))
    assert iqm(values[order]) == pytest.approx(iqm(values), abs=1e-9)


@given(values=arrays(st.integers(1, 12)), times=st.integers(2, 4))
def test_weight_is_repetition(values: np.ndarray, times: int) -> None:
    """A value of weight k counts as k values of weight one."""
    weights = np.ones(values.size)
    weights[0] = times
    repeated = np.concatenate([values, np.full(times - 1, values[0])])
    assert float(interquartile_mean(values, weights)) == pytest.approx(iqm(repeated), abs=1e-6)


def test_iqm_by_hand() -> None:
    """Of 0, 1, 2, 3, 100, the middle half is 1 and 3 by three quarters each, and 2."""
    assert iqm(np.array([3.0, 100.0, 0.0, 2.0, 1.0])) == pytest.approx((0.75 * 1 + 2 + 0.75 * 3) / 2.5)


def test_iqm_ignores_outliers() -> None:
    """One value in the outer quarters can be anything."""
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert iqm(values) == iqm(np.array([1.0, 2.0, 3.0, 1e9])) == 2.5


def test_rows_of_a_batch_are_apart() -> None:
    """A batch of resamples gives each row what it would have alone."""
    batch = np.random.default_rng(0).normal(size=(5, 9))
    weights = np.linspace(1.0, 2.0, 9)
    alone = [float(interquartile_mean(each, weights)) for each in batch]
    assert interquartile_mean(batch, weights) == pytest.approx(alone)


@given(
    seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 8), seeds=st.integers(2, 8), spread=st.floats(0, 5)
)
def test_interval_contains_the_point(seed: int, rows: int, seeds: int, spread: float) -> None:
    """The bootstrap interval of noisy scores of different rows contains the point estimate."""
    generator = np.random.default_rng(seed)
    strata = [spread * generator.normal() + generator.normal(size=seeds) for _ in range(rows)]
    estimate = stratified_estimate(strata, generator, resamples=400)
    assert estimate.low <= estimate.point <= estimate.high


def test_interval_is_scipys() -> None:
    """The interval is that of SciPy's bootstrap, which also resamples within each sample."""
    generator = np.random.default_rng(3)
    strata = [generator.normal(loc=row, size=6) for row in range(6)]
    estimate = stratified_estimate(strata, generator, resamples=20_000)

    def merged(*samples: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)

    theirs = stats.bootstrap(
        strata, merged, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_rows_are_not_resampled() -> None:
    """Rows that differ, but whose seeds agree, leave nothing to chance."""
    estimate = stratified_estimate([np.full(3, float(row)) for row in range(8)], np.random.default_rng(0))
    assert (estimate.low, estimate.point, estimate.high) == pytest.approx((3.5, 3.5, 3.5))


def test_more_seeds_weigh_no_more() -> None:
    """A row with many seeds counts as much as a row with few."""
    strata = [np.zeros(2), np.ones(200)]
    assert stratified_estimate(strata, np.random.default_rng(0)).point == pytest.approx(0.5)


@pytest.mark.parametrize("strata", [[], [np.ones(3), np.ones(1)]])
def test_too_little_to_resample(strata: list[np.ndarray]) -> None:
    """No row, or a row with one seed, is refused with what is needed."""
    with pytest.raises(ValueError, match="two scores or more"):
        stratified_estimate(strata, np.random.default_rng(0))


def test_same_generator_same_interval() -> None:
    """The interval depends on the generator alone."""
    strata = [np.random.default_rng(row).normal(size=4) for row in range(4)]
    first, second = (stratified_estimate(strata, np.random.default_rng(1)) for _ in range(2))
    assert first == second


@given(pairs=st.lists(st.tuples(scores, scores), min_size=0, max_size=8))
def test_outcomes_are_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    """What one method wins, the other loses; ties and undecided rows are so for both."""
    losses, others = (np.array([pair[side] for pair in pairs], dtype=np.float64) for side in (0, 1))
    mirror = {Outcome.WIN: Outcome.LOSS, Outcome.LOSS: Outcome.WIN}
    found = outcome(losses, others)
    assert outcome(others, losses) is mirror.get(found, found)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-1.0, -1.1, -0.9], Outcome.WIN),
        ([1.0, 1.1, 0.9], Outcome.LOSS),
        ([-1.0, 1.0, 0.1], Outcome.TIE),
        # The mean is 2, the standard error 1: at two standard errors, not beyond.
        ([1.0, 3.0], Outcome.TIE),
        ([1.0, 2.9], Outcome.LOSS),
        ([0.0, 0.0], Outcome.TIE),
        ([-5.0], Outcome.UNDECIDED),
    ],
)
def test_outcome_by_hand(differences: list[float], expected: Outcome) -> None:
    """A difference counts beyond two standard errors, and only with a noise that is known."""
    assert outcome(np.array(differences), np.zeros(len(differences))) is expected
