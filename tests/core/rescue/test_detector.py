"""What tells a training that blew up from its losses."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.policy import Floats
from mlrs_core.rescue.detector import MOST, RESCUES, SIZE, take_in

HORIZON = 1000
WAITS = 100
"""Steps that a run of this horizon is waited for after an alarm."""
STAYS = 10
"""Steps that a jump must stay."""


def alarms_of(
    losses: Sequence[float] | Floats, horizon: int = HORIZON, restored: Collection[int] = ()
) -> list[int]:
    """Return the steps of the alarms of a run, which restores a saved state before some steps."""
    memory = np.zeros(SIZE, np.float32)
    steps = range(len(losses))
    return [step for step in steps if take_in(memory, losses[step], step in restored, step, horizon)]


def falling(n: int, noise: float = 0.05, seed: int = 0, to: float = 0.1) -> Floats:
    """Return n noisy losses that fall exponentially from 2.3 to a share of that."""
    rng = np.random.default_rng(seed)
    losses: Floats = 2.3 * to ** (np.arange(n) / n) * np.exp(noise * rng.normal(size=n))
    return losses


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 3, 500])
def test_two_losses_in_a_row_that_are_not_finite_raise_an_alarm(loss: float, step: int) -> None:
    """At any step, and once: afterwards the run is waited for."""
    losses = falling(HORIZON)
    losses[step : step + 20] = loss
    assert alarms_of(losses) == [step + 1]


@pytest.mark.parametrize("horizon", [HORIZON, 1350, -1])
def test_two_losses_in_a_row_are_enough_at_any_length(horizon: int) -> None:
    """Also where a jump stays for an odd number of steps, or for more and more while no horizon is known."""
    for step in range(995, 1205):
        losses = falling(1300)
        losses[step : step + 2] = math.inf
        assert alarms_of(losses, horizon) == [step + 1]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_single_losses_that_are_not_finite_are_no_alarm(loss: float) -> None:
    """A step that mixed precision skipped is no blow-up, nor are many with others between them."""
    losses = falling(HORIZON)
    losses[::2] = loss
    assert alarms_of(losses) == []


def test_a_jump_that_ends_in_a_loss_that_is_not_finite_is_told_sooner() -> None:
    """Half of the steps of a jump and one such loss are enough."""
    losses = falling(HORIZON)
    losses[500:505] *= 30
    losses[505:510] = math.inf
    assert alarms_of(losses) == [505]


def test_a_jump_that_stays_raises_an_alarm() -> None:
    """Losses far above their average raise an alarm after a hundredth of the run."""
    losses = falling(HORIZON)
    losses[500:] *= 30
    assert alarms_of(losses)[0] == 500 + STAYS - 1


@pytest.mark.parametrize("height", [10.0, 1e4, 1e30])
def test_a_spike_is_no_alarm(height: float) -> None:
    """However high it is, a jump that is over sooner raises none."""
    losses = falling(HORIZON)
    losses[500 : 500 + STAYS - 1] *= height
    assert alarms_of(losses) == []


def test_a_rise_at_first_is_no_alarm() -> None:
    """A training that has gained nothing yet may rise a hundredfold and stay there."""
    losses = np.concatenate([falling(20, to=1.0), 230 * falling(300, to=1.0), falling(700)])
    assert alarms_of(losses) == []


def test_an_explosion_at_first_raises_an_alarm() -> None:
    """A training that has gained nothing yet and rises ten-thousandfold is told so."""
    losses = np.concatenate([falling(20, to=1.0), 23_000 * falling(300, to=1.0)])
    assert alarms_of(losses)[0] == 20 + STAYS - 1


def test_a_dead_network_raises_an_alarm() -> None:
    """A training that has lost all that it had gained is told so after a fifth of the run."""
    losses = np.concatenate([falling(300), 2.31 * falling(700, noise=0.002, to=1.0) / 2.3])
    (alarm,) = alarms_of(losses)[:1]
    assert 300 < alarm <= 300 + 0.25 * HORIZON


@pytest.mark.parametrize("above", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_unit_and_the_sign_of_losses_do_not_matter(unit: float, above: float) -> None:
    """Losses of any size, also those that fall below 0 or begin there, raise alarms like others."""
    losses = falling(HORIZON) - above
    losses[500:] += 70
    assert alarms_of(unit * losses)[0] == 500 + STAYS - 1


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    noise=st.floats(0.0, 0.7),
    to=st.floats(1e-4, 1.0),
    horizon=st.sampled_from([100, 1000, -1]),
)
def test_noise_is_no_alarm(seed: int, noise: float, to: float, horizon: int) -> None:
    """Losses that fall, or stay, under noise of any strength up to a factor of two raise no alarm."""
    n = HORIZON if horizon < 0 else horizon
    assert alarms_of(falling(n, noise, seed, to), horizon) == []


def test_a_restored_state_ends_the_wait() -> None:
    """A run that said it restored a saved state may raise the next alarm at once, others after the wait."""
    losses = falling(HORIZON)
    losses[[500, 501, 503, 504]] = math.nan
    assert alarms_of(losses) == [501]
    assert alarms_of(losses, restored={502}) == [501, 504]


def test_a_run_that_restores_nothing_begins_anew() -> None:
    """After the wait, losses that stay where they jumped to are no jump, but after a while a dead network."""
    losses = falling(HORIZON, to=0.5)
    losses[500:] *= 30
    jump = 500 + STAYS - 1
    assert alarms_of(losses) == [jump, jump + WAITS + HORIZON // 5]


def test_a_run_raises_three_alarms_at_most() -> None:
    """The fourth blow-up is told nobody."""
    losses = np.full(HORIZON, math.nan)
    losses[0] = 1.0
    assert alarms_of(losses) == [2, 2 + WAITS + 2, 2 + 2 * (WAITS + 2)]
    assert MOST == 3


@settings(max_examples=100)
@given(
    losses=st.lists(st.floats(width=64), max_size=200),
    horizon=st.sampled_from([-1, 1, 10, 2**53]),
    data=st.data(),
)
def test_any_losses_leave_finite_numbers(losses: list[float], horizon: int, data: st.DataObject) -> None:
    """No loss, no step and no report of a restored state makes a number of the detector NaN or infinite."""
    memory = np.zeros(SIZE, np.float32)
    told = data.draw(st.sets(st.integers(0, 200), max_size=5))
    alarms = [take_in(memory, loss, step in told, step, horizon) for step, loss in enumerate(losses)]
    assert np.isfinite(memory).all()
    assert memory[RESCUES] == sum(alarms) <= MOST
