"""Which alignments and losses are typical, and what is a blow-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.adapting.guard_rails import AS_THEY_ARE, CONFIRM, MAX_BAD, begin_trial, clipped, watch
from mlrs_core.adapting.state_layout import BAD, PENDING, RETURNS, SCALARS, SIZE
from mlrs_core.policy import Floats

STEPS = 2000
Noise = Callable[[np.random.Generator], Floats]
TIME = np.arange(STEPS)
STATIONARY: dict[str, Noise] = {
    "a little": lambda rng: 2 + 0.02 * rng.normal(size=STEPS),
    "a lot": lambda rng: 2 + rng.normal(size=STEPS),
    "skewed": lambda rng: np.exp(0.5 * rng.normal(size=STEPS)),
    "heavy": lambda rng: 2 + 0.3 * rng.standard_t(3, size=STEPS),
    "around zero": lambda rng: rng.normal(size=STEPS),
    "negative": lambda rng: -100 + rng.normal(size=STEPS),
    "huge": lambda rng: 1e25 * np.exp(0.3 * rng.normal(size=STEPS)),
    "no noise": lambda _rng: np.full(STEPS, 0.7),
}
FALLING: dict[str, Noise] = {
    "power": lambda rng: (0.1 + 2 / (1 + TIME / 50)) * np.exp(0.2 * rng.normal(size=STEPS)),
    "smooth": lambda _rng: 0.1 + 2 / (1 + TIME / 50),
    "to nothing": lambda rng: 2 * np.exp(-TIME / 200 + 0.3 * rng.normal(size=STEPS)),
    "through zero": lambda rng: 5 - TIME / 200 + 0.3 * rng.normal(size=STEPS),
}


class Weights:
    """A network of two weights beside numbers, watched."""

    def __init__(self, blow_up: float = 8.0) -> None:
        """Begin with weights that are good."""
        self.scalars, self.network = np.zeros(SCALARS + 1, np.float32), np.zeros(8, np.float32)
        self._blow_up = blow_up

    @property
    def returns(self) -> int:
        """How often good weights were put back."""
        return int(self.scalars[RETURNS])

    def see(self, loss: float) -> None:
        """Take in a loss."""
        watch(self.scalars, self.network, loss, self._blow_up)

    def move(self, value: float) -> None:
        """Move the weights, and the moments."""
        begin_trial(self.scalars)
        self.network[:6] = value


def returns_of(losses: Sequence[float] | Floats, every: int = 20, blow_up: float = 8.0) -> list[int]:
    """Return the steps at which weights that move every so often are put back."""
    weights, steps = Weights(blow_up), []
    for step, loss in enumerate(losses):
        before = weights.returns
        weights.see(float(loss))
        steps += [step] * (weights.returns - before)
        if step % every == every - 1:
            weights.move(step)
    return steps


@pytest.mark.parametrize("every", [5, 20, 100])
@pytest.mark.parametrize("noise", [*STATIONARY, *FALLING])
def test_noise_is_no_blow_up(noise: str, every: int) -> None:
    """Over 40 seeds of 2,000 steps nothing is put back while losses are stationary, or fall."""
    make = {**STATIONARY, **FALLING}[noise]
    assert sum(len(returns_of(make(np.random.default_rng(seed)), every)) for seed in range(40)) == 0


@pytest.mark.parametrize(("noise", "steps"), [("waves", 12_000), ("spikes", 2_500)])
def test_what_may_look_like_a_blow_up_rarely_is_taken_for_one(noise: str, steps: int) -> None:
    """Losses in long waves, or with a huge one in fifty, have weights put back once in so many steps."""
    count = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        losses = 1 + 0.1 * rng.normal(size=STEPS) + 100 * (rng.random(STEPS) < 0.02)
        if noise == "waves":
            losses, level = np.empty(STEPS), 0.0
            for step, push in enumerate(rng.normal(size=STEPS)):
                level = 0.98 * level + math.sqrt(1 - 0.98**2) * push
                losses[step] = 2 + 0.2 * level
        count += len(returns_of(losses))
    assert count <= 100 * STEPS / steps


@pytest.mark.parametrize(
    ("growth", "noise", "within"),
    [(1.1, 0.02, 8), (1.3, 0.02, 5), (1.3, 0.3, 12), (2.0, 0.3, 6), (10, 0.3, 5)],
)
def test_divergence_is_seen_soon(growth: float, noise: float, within: int) -> None:
    """A loss that grows by a factor a step has the weights put back within a few, for any of 40 seeds."""
    for seed in range(40):
        losses = np.exp(noise * np.random.default_rng(seed).normal(size=400))
        losses[300:] *= growth ** np.minimum(np.arange(100), 200)
        steps = returns_of(losses)
        assert 300 <= steps[0] <= 300 + within


@pytest.mark.parametrize("height", [10.0, 1e6, 1e300])
def test_one_spike_is_no_blow_up(height: float) -> None:
    """A loss that is huge once, or twice in a row, puts nothing back."""
    losses = 2 + 0.1 * np.random.default_rng(0).normal(size=600)
    losses[[215, 330, 331, 450]] = height
    assert returns_of(losses) == []


@given(scale=st.floats(1e-20, 1e20), seed=st.integers(0, 20))
def test_only_the_scale_of_losses_itself_counts(scale: float, seed: int) -> None:
    """Losses in any unit are treated alike, but for rounding."""
    losses = np.exp(0.1 * np.random.default_rng(seed).normal(size=300))
    losses[200:] *= 1.2 ** np.arange(100)
    steps, scaled = returns_of(losses), returns_of(losses * scale)
    assert abs(steps[0] - scaled[0]) <= 1


def test_good_weights_come_back_without_moments() -> None:
    """A blow-up brings back the weights from before the updates that are on trial, with moments of 0."""
    weights = Weights()
    for step in range(100):
        weights.see(1 + 0.01 * (step % 2))
    weights.network[:] = [5, 6, 1, 1, 1, 1, 5, 6]
    weights.scalars[SCALARS] = 3
    weights.move(9)
    for loss in (1.0, 50.0, 50.0, 50.0):
        weights.see(loss)
    assert weights.network.tolist() == [5, 6, 0, 0, 0, 0, 5, 6]
    assert (weights.returns, weights.scalars[SCALARS], weights.scalars[PENDING]) == (1, 0, 0)


def test_what_stays_high_is_the_new_usual() -> None:
    """After a return losses are measured anew: updates are not taken back for ever."""
    losses = np.exp(0.1 * np.random.default_rng(0).normal(size=1000))
    losses[300:] *= 20
    assert len(returns_of(losses)) == 1


def test_updates_prove_good() -> None:
    """After CONFIRM finite losses the weights of then are the good ones, and the trial is over."""
    weights = Weights()
    for _ in range(50):
        weights.see(1.0)
    weights.move(2)
    for _ in range(CONFIRM - 1):
        weights.see(1.0)
        weights.see(math.nan)
    assert weights.network.tolist() == [2, 2, 2, 2, 2, 2, 0, 0]
    weights.see(1.0)
    assert weights.network.tolist() == [2, 2, 2, 2, 2, 2, 2, 2]
    assert weights.scalars[PENDING] == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_losses_that_are_not_finite_are_a_blow_up(loss: float) -> None:
    """At the third in a row weights on trial are put back, once; weights that proved good stay."""
    weights = Weights()
    for _ in range(MAX_BAD + 1):
        weights.see(loss)
    assert weights.returns == 0
    weights.see(1.0)
    weights.move(2)
    for count in range(1, 6):
        weights.see(loss)
        assert weights.returns == (count >= MAX_BAD)
    weights.see(1.0)
    assert weights.scalars[BAD] == 0
    assert not weights.network.any()


@given(st.lists(st.floats(), max_size=60), st.floats(1, 1e6))
def test_any_losses_leave_finite_numbers(losses: list[float], blow_up: float) -> None:
    """Whatever is observed, what is remembered is finite."""
    weights = Weights(blow_up)
    for step, loss in enumerate(losses):
        weights.see(loss)
        assert np.isfinite(weights.scalars).all()
        if step % 3 == 0:
            weights.move(1.0)


def test_alignments_count_within_their_usual_size() -> None:
    """After the first few one counts within so many times their root mean square, and joins it so."""
    scalars = np.zeros(SCALARS + 1, np.float32)
    for number in range(AS_THEY_ARE):
        assert clipped(scalars, 2.0 * (-1) ** number, 10.0) == 2.0 * (-1) ** number
    assert scalars[SIZE] == pytest.approx(2.0)
    assert clipped(scalars, -1e30, 10.0) == pytest.approx(-20.0)
    assert scalars[SIZE] == pytest.approx(math.sqrt((5 * 4 + 400) / 6))


def test_first_alignments_count_as_they_are() -> None:
    """The second alignment may be a million times the first."""
    scalars = np.zeros(SCALARS + 1, np.float32)
    assert clipped(scalars, 1e-6, 10.0) == 1e-6
    assert clipped(scalars, 1.0, 10.0) == 1.0
