"""The rules of a search: which trials are made, when they end, and what follows from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.config.default_rates import default_lr
from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.errors import InvalidFieldError
from mlrs_core.policy import table_of
from mlrs_core.search import Found, SearchSetup, Trial, TrialResult, what_next
from mlrs_core.search.race import (
    EXPONENT,
    FLAT,
    LONGEST,
    MOST_TRIALS,
    SHARE,
    SHORTEST,
    UNKNOWN_HORIZON,
)

LossOf = Callable[[float], float]
"""From the learning rate of a trial to the loss after it."""
HALF_DECADE = math.sqrt(10.0)
FAR = 1e9
"""A loss at the start from which every trial leads away."""
ANY_LOSS = st.floats()
"""NaN, infinities, negative and huge losses are among them."""
LOSSES = st.lists(ANY_LOSS, min_size=1, max_size=MOST_TRIALS)
SETUPS = st.builds(
    SearchSetup,
    horizon=st.none() | st.integers(1, 2**53),
    optimizer=st.sampled_from(Optimizer),
    momentum=st.none() | st.floats(0, 1),
    initial_lr=st.none() | st.floats(MIN_BASE_LR, MAX_BASE_LR),
)
SGD, ADAM = (SearchSetup(horizon=1000, optimizer=kind) for kind in (Optimizer.SGD, Optimizer.ADAM))


def made(setup: SearchSetup, loss_of: LossOf, start: float) -> tuple[list[TrialResult], Found]:
    """Make the trials of a search until it ends; return their results, and its end."""
    results: list[TrialResult] = []
    while isinstance(asked := what_next(setup, results), Trial):
        assert len(results) <= MOST_TRIALS
        loss = loss_of(asked.learning_rate) if asked.steps else start
        results.append(TrialResult(learning_rate=asked.learning_rate, steps=asked.steps, loss=loss))
    return results, asked


def searched(setup: SearchSetup, loss_of: LossOf, start: float = FAR) -> tuple[list[TrialResult], Found]:
    """Make a search as `made` does; return the results of the trials that have steps, and its end."""
    (first, *results), found = made(setup, loss_of, start)
    assert first.steps == 0
    return results, found


def in_order(losses: Sequence[float]) -> LossOf:
    """Return what gives one loss after another, the last one for ever, whatever the learning rate."""
    left = itertools.chain(losses, itertools.repeat(losses[-1]))
    return lambda _: next(left)


def parabola(best: float, *, curvature: float = 1.0, floor: float = 0.0) -> LossOf:
    """Return a loss that is quadratic in the decades from the best learning rate."""
    return lambda rate: floor + curvature * math.log10(rate / best) ** 2


def diverging_above(limit: float, below: LossOf) -> LossOf:
    """Return a loss that is NaN above a learning rate."""
    return lambda rate: math.nan if rate > limit else below(rate)


# ---------------------------------------------------------------------------------- any losses


@given(setup=SETUPS, start=ANY_LOSS, losses=LOSSES)
def test_every_search_ends(setup: SearchSetup, start: float, losses: list[float]) -> None:
    """Whatever the losses are, at most so many trials are made, and all learning rates can be used."""
    results, found = searched(setup, in_order(losses), start)
    assert 3 <= len(results) <= MOST_TRIALS
    for rate in (*(one.learning_rate for one in results), found.learning_rate, found.octaves):
        assert 0.0 < rate < math.inf
    assert {one.steps for one in results} == {setup.steps}
    assert found.steps == len(results) * setup.steps


@given(setup=SETUPS, start=ANY_LOSS, losses=LOSSES)
def test_results_alone_decide(setup: SearchSetup, start: float, losses: list[float]) -> None:
    """A search that is taken up after any of its trials asks for the same ones, and finds the same."""
    results, found = made(setup, in_order(losses), start)
    for number, result in enumerate(results):
        assert what_next(setup, results[:number]) == Trial(result.learning_rate, result.steps)
    assert what_next(replace(setup), tuple(results)) == found


@given(setup=SETUPS, start=ANY_LOSS, losses=LOSSES)
def test_no_learning_rate_is_tried_twice(setup: SearchSetup, start: float, losses: list[float]) -> None:
    """The learning rates that are tried are half a decade apart, without a gap."""
    results, _ = searched(setup, in_order(losses), start)
    rates = sorted(one.learning_rate for one in results)
    for lower, higher in itertools.pairwise(rates):
        assert higher / lower == pytest.approx(HALF_DECADE)


@given(losses=st.lists(st.floats(-1e100, 1e100), min_size=2, max_size=MOST_TRIALS), power=st.integers(-9, 9))
def test_the_unit_of_the_loss_does_not_matter(losses: list[float], power: int) -> None:
    """Losses in another unit, a power of two times as large, lead to the same decision bit for bit."""
    start, *after = (0.0 if abs(loss) < 1e-100 else loss for loss in losses)
    one, other = (
        searched(SGD, in_order([loss * unit for loss in after]), start * unit) for unit in (1.0, 2.0**power)
    )
    assert [result.learning_rate for result in one[0]] == [result.learning_rate for result in other[0]]
    assert one[1] == other[1]


@given(losses=LOSSES, steps=st.integers(0, 9))
def test_steps_that_were_made_are_counted(losses: list[float], steps: int) -> None:
    """What was found has taken the steps that were made, fewer than asked for where trials diverged."""
    results, found = made(SGD, in_order(losses), FAR)
    shorter = [replace(one, steps=steps) for one in results]
    assert what_next(SGD, shorter) == replace(found, steps=steps * len(results))


# ------------------------------------------------------------------------------ a minimum is found


@given(
    setup=st.sampled_from([SGD, ADAM, replace(SGD, horizon=None), replace(ADAM, horizon=100_000)]),
    decades=st.floats(-2.0, 2.5),
    start=st.integers(-4, 4),
    curvature=st.floats(0.01, 100.0),
    floor=st.floats(-10.0, 10.0),
)
def test_the_start_does_not_matter(
    setup: SearchSetup, decades: float, start: int, curvature: float, floor: float
) -> None:
    """From any start of 0.01 to 100 times the default, the same minimum leads to the same learning rate."""
    loss_of = parabola(setup.default_lr * 10.0**decades, curvature=curvature, floor=floor)
    _, expected = searched(setup, loss_of)
    _, found = searched(replace(setup, initial_lr=setup.default_lr * HALF_DECADE**start), loss_of)
    assert found.learning_rate == pytest.approx(expected.learning_rate, rel=1e-6)
    assert found.octaves == expected.octaves == setup.family.octaves


@given(setup=st.sampled_from([SGD, ADAM]), decades=st.floats(-3.0, 2.0), more=st.floats(0.0, 1.0))
def test_what_is_found_follows_the_minimum(setup: SearchSetup, decades: float, more: float) -> None:
    """Where the minimum is so many decades higher, what is found is higher by the family's slope of them."""
    one, other = (
        searched(setup, parabola(setup.default_lr * 10.0**place))[1].learning_rate
        for place in (decades, decades + more)
    )
    assert math.log10(other / one) == pytest.approx(setup.family.slope * more, abs=1e-6)


@given(setup=st.sampled_from([SGD, ADAM]), decades=st.floats(-3.0, 3.0))
def test_a_minimum_is_enclosed(setup: SearchSetup, decades: float) -> None:
    """The trials end one beyond the best one, and that is the nearest one to the minimum."""
    best = setup.default_lr * 10.0**decades
    results, _ = searched(setup, parabola(best))
    rates = sorted(one.learning_rate for one in results)
    nearest = min(rates, key=lambda rate: abs(math.log(rate / best)))
    assert math.log10(nearest / best) == pytest.approx(0.0, abs=0.25 + 1e-9)
    assert rates[0] < nearest < rates[-1]
    assert rates.index(nearest) in (1, len(rates) - 2)


def test_long_trainings_begin_lower() -> None:
    """From the same trials, a training a hundred times as long begins lower by the exponent."""
    loss_of = parabola(0.1)
    short, long = (searched(replace(SGD, horizon=horizon), loss_of)[1] for horizon in (4000, 400_000))
    ratio = (400_000 / replace(SGD, horizon=400_000).steps) / (4000 / replace(SGD, horizon=4000).steps)
    assert short.learning_rate / long.learning_rate == pytest.approx(ratio**EXPONENT)
    assert short.octaves == long.octaves


# ------------------------------------------------------------------------------ nothing learnt


@given(
    setup=st.sampled_from([SGD, ADAM]),
    start=st.floats(0.1, 100.0) | st.floats(-100.0, -0.1),
    useful=st.floats(-1.0, 4.0),
    noise=st.lists(st.floats(-FLAT, FLAT), min_size=30, max_size=30),
)
def test_trials_that_change_nothing_lead_upwards(
    setup: SearchSetup, start: float, useful: float, noise: list[float]
) -> None:
    """Where low learning rates change the loss by mere noise, higher ones are tried until one does good."""
    best = setup.default_lr * 10.0**useful
    wobble = iter(noise)

    def loss_of(rate: float) -> float:
        if rate < best / HALF_DECADE**1.5:
            return start * (1.0 + 0.99 * next(wobble))
        return start - abs(start) * (0.8 - math.log10(rate / best) ** 2)

    found = searched(setup, loss_of, start)[1]
    expected = searched(setup, parabola(best))[1]
    assert found.learning_rate == pytest.approx(expected.learning_rate, rel=0.5)


def test_where_nothing_is_learnt_the_highest_stable_rate_is_taken() -> None:
    """Where no trial does good and the high ones diverge, the highest that does no harm is the best one."""
    results, found = searched(SGD, diverging_above(3.0, lambda _: 2.0), 2.0)
    stable = [one.learning_rate for one in results if math.isfinite(one.loss)]
    expected = searched(SGD, parabola(max(stable)))[1]
    assert found.learning_rate == pytest.approx(expected.learning_rate)


def test_where_no_rate_does_anything_the_highest_is_taken() -> None:
    """Where no trial changes the loss all are made, and what is found is less certain."""
    results, found = searched(SGD, lambda _: 2.0, 2.0)
    assert len(results) == MOST_TRIALS
    assert results[-1].learning_rate == max(one.learning_rate for one in results)
    assert found.octaves > SGD.family.octaves


@pytest.mark.parametrize("start", [math.nan, math.inf, -math.inf])
def test_a_start_without_a_loss_is_passed_over(start: float) -> None:
    """Where the loss at the start is not finite, the trials alone decide."""
    assert searched(SGD, parabola(0.1), start) == searched(SGD, parabola(0.1))


# ----------------------------------------------------------------------------------- divergence


@given(
    setup=st.sampled_from([SGD, ADAM]),
    limit=st.floats(-3.0, 6.0),
    decades=st.floats(-9.0, 9.0),
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_diverged_trials_are_walked_away_from(
    setup: SearchSetup, limit: float, decades: float, bad: float
) -> None:
    """From the third trial on no learning rate above a diverged one is tried, and the best one is stable."""
    stable = setup.default_lr * 10.0**limit
    below = parabola(setup.default_lr * 10.0**decades)
    results, found = searched(setup, lambda rate: bad if rate > stable else below(rate))
    for made in range(2, len(results)):
        diverged = [one.learning_rate for one in results[:made] if not math.isfinite(one.loss)]
        assert results[made].learning_rate < min(diverged, default=math.inf)
    finite = [one for one in results if math.isfinite(one.loss)]
    if finite:
        best = min(finite, key=lambda one: one.loss)
        highest = searched(setup, parabola(best.learning_rate * HALF_DECADE**0.5))[1]
        assert found.learning_rate <= highest.learning_rate * (1.0 + 1e-6)


@given(
    setup=st.sampled_from([SGD, ADAM, replace(SGD, initial_lr=1e-12)]),
    bad=st.sampled_from([math.nan, math.inf]),
)
def test_where_all_diverge_the_lowest_is_taken(setup: SearchSetup, bad: float) -> None:
    """If no trial is stable, all are made, the lowest is the least bad, and the uncertainty says so."""
    results, found = searched(setup, lambda _: bad)
    assert len(results) == MOST_TRIALS
    lowest = min(one.learning_rate for one in results)
    assert lowest == results[-1].learning_rate
    expected = searched(setup, parabola(lowest))[1]
    assert found.learning_rate == pytest.approx(expected.learning_rate)
    assert found.octaves > 10.0


def test_an_open_end_is_less_certain() -> None:
    """Where the loss still falls at the last trial, what is found is less certain than between two trials."""
    falling = searched(SGD, lambda rate: -math.log(rate))
    assert len(falling[0]) == MOST_TRIALS
    enclosed = searched(SGD, parabola(0.1))[1]
    assert falling[1].octaves > enclosed.octaves


def test_a_search_may_begin_where_everything_diverges() -> None:
    """From a start far above what is stable, the search walks down to the minimum."""
    loss_of = diverging_above(0.05, parabola(0.01))
    _, expected = searched(SGD, loss_of)
    results, found = searched(replace(SGD, initial_lr=SGD.default_lr * 10.0 * 100.0), loss_of)
    assert sum(not math.isfinite(one.loss) for one in results) > 3
    assert found.learning_rate == pytest.approx(expected.learning_rate, rel=1e-6)


# ------------------------------------------------------------------------------ steps and setups


@given(horizon=st.integers(1, 2**53), longer=st.integers(0, 10**6))
def test_trials_are_short(horizon: int, longer: int) -> None:
    """A trial has 1 % of the steps, at least 8 and less of long trainings, and never more than there are."""
    steps = replace(SGD, horizon=horizon).steps
    assert min(SHORTEST, horizon) <= steps <= max(SHORTEST, SHARE * horizon)
    assert steps <= horizon
    if SHORTEST / SHARE <= horizon <= LONGEST / SHARE:
        assert steps > SHARE * horizon - 1.0
    assert steps <= replace(SGD, horizon=min(horizon + longer, 2**53)).steps


@pytest.mark.parametrize(
    ("horizon", "steps"), [(1, 1), (7, 7), (8, 8), (200, 8), (900, 9), (4000, 40), (16_000, 80), (10**6, 632)]
)
def test_steps_of_a_trial(horizon: int, steps: int) -> None:
    """These are the steps of a trial by the horizon."""
    assert replace(SGD, horizon=horizon).steps == steps


def test_an_unknown_horizon_is_searched_as_a_usual_one() -> None:
    """Without a horizon trials are as long as of a usual one."""
    assert replace(SGD, horizon=None).steps == replace(SGD, horizon=UNKNOWN_HORIZON).steps == 20


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize("momentum", [None, 0.0, 0.5, 0.9, 0.99, 0.9999])
def test_the_default_is_that_of_runs(optimizer: Optimizer, momentum: float | None) -> None:
    """Where nothing is given a search begins from the default learning rate that whole runs have."""
    of_runs = default_lr(table_of([RunConfig(optimizer=optimizer, momentum=momentum)])[0])
    setup = SearchSetup(horizon=100, optimizer=optimizer, momentum=momentum)
    assert setup.default_lr == of_runs
    first = what_next(setup, [])
    assert isinstance(first, Trial)
    assert 1.0 < first.learning_rate / of_runs < 100.0


def test_trials_begin_where_they_are_told() -> None:
    """A learning rate that is given is the first one tried, after a trial that measures the start."""
    setup = replace(ADAM, initial_lr=0.123)
    assert what_next(setup, []) == Trial(0.123, 0)
    start = TrialResult(learning_rate=0.123, steps=0, loss=2.0)
    assert what_next(setup, [start]) == Trial(0.123, ADAM.steps)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("horizon", 2**53 + 1),
        ("horizon", 10.5),
        ("momentum", -0.1),
        ("momentum", 1.1),
        ("momentum", math.nan),
        ("initial_lr", 0.0),
        ("initial_lr", -1.0),
        ("initial_lr", math.nan),
        ("initial_lr", math.inf),
    ],
)
def test_a_setup_out_of_range_is_refused(field: str, value: Any) -> None:
    """A value out of range is refused, and the error names the field."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: ") as caught:
        replace(SGD, **{field: value})
    assert caught.value.field == field
