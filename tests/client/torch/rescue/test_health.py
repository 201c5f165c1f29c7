"""When a PyTorch training is copied, by its losses and its advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from mlrs.torch.rescue.health import Health, Then
from tests.client.torch.rescue.trainings import HORIZON


def decided(
    losses: Sequence[float],
    *,
    restores: Sequence[int] = (),
    first: int = 0,
    horizon: int | None = HORIZON,
    validations: Mapping[int, float] | None = None,
) -> dict[int, Then]:
    """Return what is done at the steps of a run where that is something."""
    health, done = Health(first), {}
    for step, loss in enumerate(losses, first):
        health.note(step, loss, (validations or {}).get(step))
        then = health.then(step, restore=step in restores, horizon=horizon)
        assert then == health.then(step, restore=False, horizon=horizon)
        if then != Then.NOTHING:
            done[step] = then
    return done


def test_a_copy_is_replaced_after_each_healthy_tenth() -> None:
    """The first step is copied, and then one of each twenty."""
    assert list(decided([2.0 - 0.005 * step for step in range(HORIZON)])) == list(range(0, HORIZON, 20))


@pytest.mark.parametrize("seed", range(5))
def test_noise_delays_no_copy_for_long(seed: int) -> None:
    """Under losses that vary by a third, copies come nearly as often."""
    noise = np.exp(0.3 * np.random.default_rng(seed).normal(size=HORIZON))
    kept = list(decided((noise * np.linspace(2.0, 0.5, HORIZON)).tolist()))
    assert len(kept) >= 6
    assert max(np.diff([*kept, HORIZON])) < 60


def test_bad_losses_and_alarms_delay_the_next_copy() -> None:
    """After a loss that is not finite, and after an advice to restore, a whole healthy tenth must pass."""
    losses = [1.0] * 100
    losses[30] = math.nan
    done = decided(losses, restores=[60])
    assert done == dict.fromkeys((0, 20, 51), Then.KEEP) | {60: Then.RESTORE} | {81: Then.KEEP}


@pytest.mark.parametrize("worse", [2.3, 30.0])
def test_a_sick_training_is_not_copied(worse: float) -> None:
    """What has lost what it had gained is not copied while the daemon may still tell, though it is steady."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[worse] * 89]
    assert list(decided(losses)) == [0, 20, 40]


def test_a_training_that_dies_in_a_storm_is_not_copied() -> None:
    """Losses that vary widely before the training is dead do not make it pass for healthy."""
    storm = [40.0 if step % 3 == 0 else 2.4 for step in range(20)]
    losses = [*np.linspace(2.3, 0.7, 30).tolist(), *storm, *[2.34] * 69]
    assert list(decided(losses)) == [0, 20]


def test_an_old_copy_is_replaced_though_losses_have_risen() -> None:
    """After half of the horizon that nobody complained about, losses that rose are the usual ones."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 150]
    assert list(decided(losses)) == [0, 20, 40, 140, 160, 180]


def test_an_old_copy_is_not_replaced_at_a_spike_or_right_after_a_bad_loss() -> None:
    """A loss far above those of now, and one that is not finite, delay also the copy that is overdue."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 150]
    losses[140] = 20.0
    assert list(decided(losses))[:4] == [0, 20, 40, 142]
    losses[140] = math.inf
    assert list(decided(losses))[:4] == [0, 20, 40, 161]


def test_a_copy_that_was_to_be_put_back_is_not_old() -> None:
    """After an advice to restore, another half of the horizon must pass."""
    losses = [*np.linspace(2.3, 1.5, 50).tolist(), *[2.0] * 350]
    assert list(decided(losses, restores=[120])) == [0, 20, 40, 120, *range(220, 400, 20)]


def test_the_step_of_the_lowest_validation_loss_is_copied_and_no_other() -> None:
    """Where validation losses are told, a copy is what generalized best, however healthy later steps are."""
    validations = {10: 2.0, 30: 1.0, 50: 1.5, 70: 0.8, 90: 0.8, 110: math.nan, 130: 0.9}
    losses = [2.0 - 0.005 * step for step in range(150)]
    assert list(decided(losses, validations=validations)) == [0, 10, 30, 70]


def test_weights_that_blew_up_are_not_copied_for_their_validation_loss() -> None:
    """The first validation loss is the lowest so far also of a dead network: the copy of before stays.

    It is replaced as the network recovers, and again for the next validation loss, which is lower.
    """
    losses = [*np.linspace(2.3, 1.5, 8).tolist(), *[2.4] * 42, *np.linspace(2.4, 1.0, 50).tolist()]
    assert list(decided(losses, validations={20: 2.4, 30: 2.3, 40: 2.35, 90: 1.2})) == [0, 67, 90]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_step_whose_loss_is_not_finite_is_not_copied_for_its_validation_loss(loss: float) -> None:
    """As where the validated weights are averages, or those of an earlier step."""
    losses = [2.0 - 0.005 * step for step in range(60)]
    losses[50:] = [loss] * 10
    assert list(decided(losses, validations={10: 2.0, 50: 1.0})) == [0, 10]


def test_without_further_validation_losses_losses_decide_again() -> None:
    """After three tenths of the horizon without one, copies are replaced after healthy tenths."""
    losses = [2.0 - 0.005 * step for step in range(HORIZON)]
    assert list(decided(losses, validations={10: 2.0})) == [0, 10, *range(71, HORIZON, 20)]


def test_no_copy_replaces_the_one_that_is_put_back() -> None:
    """Advice to restore leads back to the lowest validation loss, also later, until there is a lower one."""
    losses = [2.0 - 0.005 * step for step in range(150)]
    done = decided(losses, validations={10: 3.0, 30: 1.0, 60: 1.2, 90: 1.1, 120: 0.9}, restores=[60])
    assert done == dict.fromkeys((0, 10, 30, 120), Then.KEEP) | {60: Then.RESTORE}


def test_after_a_restore_lower_validation_losses_are_copied_again() -> None:
    """The lower training losses of the stretch that overfitted went with it: those of the copy count."""
    fitted = [*np.linspace(2.0, 0.8, 40), *np.linspace(0.8, 0.1, 40)]
    again = np.linspace(0.8, 0.6, 120)
    told = {10: 2.0, 30: 1.2, 40: 1.0, 60: 1.2, 79: 1.4, 100: 0.95, 120: 1.1, 140: 0.9}
    done = decided([*fitted, *again], validations=told, restores=[79])
    assert done == dict.fromkeys((0, 10, 30, 40, 100, 140), Then.KEEP) | {79: Then.RESTORE}


def test_losses_of_steps_that_were_given_up_may_be_noted_later() -> None:
    """In a loop whose losses are read late, those of the stretch that overfitted still do not count."""
    health, kept = Health(0), list[int]()
    losses = [*np.linspace(2.0, 0.8, 40), *np.linspace(0.8, 0.1, 40), *np.linspace(0.8, 0.6, 80)]
    told = {10: 2.0, 40: 1.0, 79: 0.5, 100: 0.95, 140: 0.9}
    for step in range(len(losses)):
        if step != 79:
            for noted in (79, 80) if step == 80 else (step,):
                health.note(noted, losses[noted], told.get(noted))
        if health.then(step, restore=step == 79, horizon=HORIZON) == Then.KEEP:
            kept.append(step)
    assert kept == [0, 10, 40, 100, 140]


def test_weights_that_were_given_up_are_not_copied_for_their_validation_loss() -> None:
    """A validation loss that waited for a healthy step is forgotten when a copy is put back."""
    losses = [*np.linspace(2.0, 1.0, 40), *[5.0] * 10, *np.linspace(1.0, 0.9, 50)]
    assert list(decided(losses, validations={30: 1.0, 41: 0.5, 60: 0.8}, restores=[50]))[3:] == [50, 60]
    assert list(decided(losses, validations={30: 1.0, 41: 0.5}))[3] < 60


def test_without_a_copy_a_restore_forgets_no_losses() -> None:
    """A process that resumed a run has nothing to put back, and does not take a dead network for healthy."""
    losses = [*np.linspace(2.0, 1.0, 15), *[3.0] * 60]
    assert decided(losses, first=70, restores=[90]) == {90: Then.RESTORE}


def test_copies_for_validation_losses_are_a_hundredth_of_the_horizon_apart() -> None:
    """A loop that validates at each step copies at some of them."""
    losses = [2.0 - 0.0005 * step for step in range(2000)]
    told = {step: 3.0 - 0.001 * step for step in range(1, 2000)}
    assert list(decided(losses, validations=told, horizon=2000)) == list(range(0, 2000, 20))


def test_where_the_horizon_is_not_known_a_copy_is_replaced_after_1000_steps() -> None:
    """It is old after 5,000 steps, and later in the run after half of the steps so far."""
    healthy = [1.0] * 3001
    assert list(decided(healthy, horizon=None)) == [0, 1000, 2000, 3000]
    assert list(decided([*healthy, *[2.0] * 6000], horizon=None))[3:] == [3000, 8000, 9000]
    risen = [*[1.0] * 8001, *[2.0] * 10_000]
    assert list(decided(risen, horizon=None))[8:] == [8000, 16_001, 17_001]


def test_a_step_whose_loss_is_not_known_is_not_copied() -> None:
    """Where losses are noted late, a copy that is due waits for a step whose own loss was noted."""
    health, kept = Health(0), list[int]()
    for step in range(60):
        if step < 15 or step == 33:
            health.note(step, 1.0)
        if health.then(step, restore=False, horizon=HORIZON) == Then.KEEP:
            kept.append(step)
    assert kept == [0, 33]


def test_a_bad_loss_that_is_noted_late_delays_the_next_copy() -> None:
    """A loss that is not finite counts at its own step, also if another was noted before anybody asked."""
    health, kept = Health(0), list[int]()
    for step in range(60):
        if step != 15:
            for noted in (15, 16) if step == 16 else (step,):
                health.note(noted, math.nan if noted == 15 else 1.0)
        if health.then(step, restore=False, horizon=HORIZON) == Then.KEEP:
            kept.append(step)
    assert kept == [0, 36, 56]


def test_a_training_that_continues_is_copied_after_a_healthy_tenth() -> None:
    """A process that begins later than at step 0 does not know whether it begins healthy."""
    assert list(decided([1.0] * 50, first=70)) == [90, 110]
