"""What tells a training that overfits from its validation losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.rescue.overfitting import ALARMS, COOL, LOWERED, SIZE, note, share, validated, went_back

HORIZON = 2000
EVERY = 100
"""Steps from one validation to the next."""


class Told(NamedTuple):
    """What a run was told."""

    alarms: list[int]
    """The steps of its alarms."""
    shares: list[float]
    """What its learning rates were multiplied by at each step."""

    @property
    def lowest(self) -> float:
        """The lowest share."""
        return min(self.shares)


def falling(step: int, _share: float) -> float:
    """Return a training loss that falls in a straight line."""
    return 2.0 - step / HORIZON


def told(
    validation: Callable[[int, float], float],
    loss: Callable[[int, float], float] = falling,
    *,
    every: int = EVERY,
    horizon: int = HORIZON,
    goes_back: bool = True,
) -> Told:
    """Return what a run is told whose losses are functions of the step and of the share before.

    `goes_back`: whether it puts a copy back at an alarm, and says so with the next step.
    """
    memory, alarms, shares = np.zeros(SIZE, np.float32), list[int](), [1.0]
    for step in range(HORIZON):
        now = validation(step, shares[-1]) if step and step % every == 0 else math.nan
        if goes_back and alarms and alarms[-1] == step - 1:
            went_back(memory, step, horizon)
        note(memory, loss(step, shares[-1]))
        if validated(memory, now, step, horizon):
            alarms.append(step)
        shares.append(share(memory, step, horizon))
    return Told(alarms, shares[1:])


def overfits(step: int, _share: float) -> float:
    """Return a validation loss that is lowest at step 500, and rises afterwards whatever the rate."""
    return 1.0 + abs(step - 500) / 1000


def noisy(step: int, share: float) -> float:
    """Return one that is above 0.5 by noise of the learning rate alone, which was small at step 500."""
    return 0.5 + (0.0 if step == 500 else 0.3 * share) - 0.05 * step / HORIZON


def test_a_rise_that_stays_at_lower_rates_raises_an_alarm() -> None:
    """The rate falls to a tenth for two validations; then the run is told, and goes on at a quarter."""
    of_run = told(overfits)
    assert of_run.alarms == [1000]
    assert of_run.shares[799] == 1.0
    assert of_run.shares[800:901] == sorted(of_run.shares[800:901], reverse=True)
    assert of_run.shares[901:1000] == pytest.approx([COOL] * 99)
    assert set(of_run.shares[1000:]) == {LOWERED}


def test_a_rise_that_goes_with_the_rate_raises_none() -> None:
    """Noise of a high learning rate ends a check without an alarm, and the rate is what it was."""
    of_run = told(noisy)
    assert of_run.alarms == []
    assert of_run.lowest == pytest.approx(COOL)
    assert of_run.shares[-1] == 1.0
    assert of_run.shares.count(1.0) > 0.7 * HORIZON


@pytest.mark.parametrize(
    "validation",
    [
        lambda step, _: 2.0 - step / HORIZON,
        lambda step, _: 1.0 + 0.04 * (step > 500),
        lambda step, _: 1.0 if step == EVERY else math.inf,
        lambda _step, _share: math.nan,
    ],
    ids=["falls", "rises by less than is checked", "is infinite", "is not told"],
)
def test_others_are_left_alone(validation: Callable[[int, float], float]) -> None:
    """Without a rise that counts, learning rates are the policy's own."""
    of_run = told(validation)
    assert (of_run.alarms, of_run.lowest) == ([], 1.0)


def test_a_training_whose_own_loss_rises_does_not_overfit() -> None:
    """What worsens on both sides is another matter, as harder data or too high a rate."""
    assert told(overfits, lambda step, _: 1.0 + step / HORIZON).lowest == 1.0


def test_a_run_without_a_horizon_is_left_alone() -> None:
    """Lengths are shares of the horizon."""
    assert told(overfits, horizon=-1) == Told([], [1.0] * HORIZON)


def test_a_check_without_validations_lapses() -> None:
    """If no validation loss comes after a check began, rates are after a while what they were."""

    def validation(step: int, share: float) -> float:
        return overfits(step, share) if step <= 800 else math.nan

    of_run = told(validation)
    assert of_run.alarms == []
    assert of_run.lowest == pytest.approx(COOL)
    assert of_run.shares[-1] == 1.0


def test_a_run_has_two_checks_that_end_well() -> None:
    """What was noise twice is taken for noise from then on."""
    of_run = told(lambda step, share: 0.5 + (0.0 if step == 100 else 0.2 * share), every=20)
    began = [step for step in range(1, HORIZON) if of_run.shares[step] < 1.0 == of_run.shares[step - 1]]
    assert (of_run.alarms, len(began)) == ([], 2)


def test_noise_of_a_loss_near_zero_is_no_rise() -> None:
    """A loss that has fallen to nearly nothing may double: what counts is a share of what was gained."""
    of_run = told(lambda step, _: 2.0 if step == EVERY else 1e-5 * (1.0 + (step > 300)))
    assert (of_run.alarms, of_run.lowest) == ([], 1.0)


def test_a_training_that_was_sent_back_may_overfit_again() -> None:
    """Its loss, which rose as it went back, is compared with that of the weights that it went back to."""
    of_run = told(
        lambda step, _: 1.0 + abs(step - 200) / 1000,
        lambda step, share: falling(step, share) if step < 700 else 1.85,
    )
    assert of_run.alarms[:2] == [700, 1200]


def test_a_run_that_goes_not_back_is_compared_with_what_it_was_told_at() -> None:
    """Where no copy is put back, each alarm needs a rise of its own, and a level that stays raises one."""
    assert told(lambda step, _: 1.0 + 0.3 * (step > 300), goes_back=False).alarms == [600]
    assert told(lambda step, _: math.exp(abs(step - 300) / 1000), goes_back=False).alarms == [800, 1300]


@pytest.mark.parametrize(
    ("noise", "every", "most"),
    [(0.03, 20, 0), (0.05, 20, 0), (0.1, 20, 0), (0.03, 100, 0), (0.05, 100, 0), (0.1, 100, 3)],
)
def test_noise_of_the_validation_itself_is_rarely_taken_for_overfitting(
    noise: float, every: int, most: int
) -> None:
    """Examples that are drawn anew each time make losses vary at any rate: the lowest one is luck."""
    runs = 0
    for seed in range(20):
        chance = np.random.default_rng(seed)

        def validation(step: int, _share: float, chance: np.random.Generator = chance) -> float:
            return (0.8 + 0.2 * math.exp(-6.0 * step / HORIZON)) * math.exp(noise * chance.normal())

        runs += bool(told(validation, every=every).alarms)
    assert runs <= most


def test_overfitting_is_told_through_noise_of_the_validation() -> None:
    """A rise of several times the noise counts, however noisy single losses are."""
    chance = np.random.default_rng(0)
    of_run = told(lambda step, share: overfits(step, share) * math.exp(0.05 * chance.normal()), every=20)
    assert of_run.alarms
    assert of_run.alarms[0] < 1300


def test_noise_of_losses_that_cross_zero_is_no_overfitting() -> None:
    """A rise that is a large share of the lowest loss may still be a small one."""
    chance = np.random.default_rng(0)
    assert (
        told(lambda step, _: 0.5 * math.exp(-5 * step / HORIZON) - 0.1 + 0.02 * chance.normal()).alarms == []
    )


def test_a_huge_training_loss_counts_for_nothing() -> None:
    """One beyond what float32 can hold leaves the mean of the others as it is."""
    of_run = told(overfits, lambda step, share: 1e42 if step == 450 else falling(step, share))
    assert of_run.alarms == told(overfits).alarms


def test_a_huge_validation_loss_counts_for_nothing() -> None:
    """One beyond what float32 can hold does not end the watch."""
    assert told(lambda step, share: 1e39 if step == 300 else overfits(step, share)) == told(
        lambda step, share: math.nan if step == 300 else overfits(step, share)
    )


def test_the_training_loss_since_the_last_validation_counts() -> None:
    """One that has risen is no sign of overfitting, though its mean over the whole training still falls."""
    assert told(overfits, lambda step, _: 2.0 - step / 1000 if step < 500 else 1.7).lowest == 1.0


def test_a_check_compares_with_the_lowest_loss_before_it() -> None:
    """A low value within a check is good news, and not what its end is held against."""
    of_run = told(
        lambda step, _: {500: 1.0, 800: 0.9, 950: 1.0}.get(step, 1.2 if step < 900 else 1.0), every=50
    )
    assert of_run.alarms == []
    assert of_run.lowest == pytest.approx(COOL)


@pytest.mark.parametrize("every", [2, 25, 100, 160])
def test_alarms_come_at_the_same_time_however_often_is_validated(every: int) -> None:
    """Lengths are shares of the horizon, not numbers of validations."""
    assert 850 <= told(overfits, every=every).alarms[0] <= 1000 + 2 * every


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-6, 1.0, 1e6]), shift=st.floats(-2.0, 2.0))
def test_alarms_and_shares_are_bounded(seed: int, scale: float, shift: float) -> None:
    """Whatever the losses, at most `ALARMS` alarms are raised, each lowers the rate, and no check lasts."""
    chance = np.random.default_rng(seed)

    def validation(_step: int, _share: float) -> float:
        return scale * (shift + float(chance.normal()))

    of_run = told(
        validation, lambda _step, _share: float(chance.normal()), every=int(chance.integers(1, 200))
    )
    assert len(of_run.alarms) <= ALARMS
    assert of_run.lowest >= 0.999 * COOL * LOWERED**ALARMS
    assert of_run.shares[-1] == LOWERED ** len(of_run.alarms)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([2.0**-20, 0.5, 2.0**20]))
def test_the_scale_of_losses_plays_no_part(seed: int, scale: float) -> None:
    """Losses in another unit raise the same alarms."""
    noise = np.random.default_rng(seed).normal(size=HORIZON)

    def validation(step: int, share: float) -> float:
        return overfits(step, share) * math.exp(0.1 * noise[step])

    assert told(lambda *at: scale * validation(*at), lambda *at: scale * falling(*at)) == told(validation)
