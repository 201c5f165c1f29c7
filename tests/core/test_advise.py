"""The rules around a network's step: losses that are not finite, and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.advise import advise
from mlrs_core.architectures import Architecture
from mlrs_core.config import RunConfig
from mlrs_core.policy import RunColumns
from tests.core.families import SMALL, label, random_model

NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_losses_that_are_not_finite_are_held(spec: Architecture) -> None:
    """NaN and infinities move no bit of the state and repeat the last learning rate."""
    policy, n = random_model(spec).policy(), 3
    runs = RunColumns.of([RunConfig(num_classes=10)] * n)
    steps = np.zeros(n, np.int64)
    lrs, states, _ = advise(policy, policy.init_state(n), steps, np.full(n, 2.3), np.full(n, np.nan), runs)
    again, moved, held = advise(policy, states, steps + 1, np.array(NOT_FINITE), lrs, runs)
    assert held.all()
    assert moved.tobytes() == states.tobytes()
    assert again.tobytes() == lrs.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
@pytest.mark.parametrize("loss", NOT_FINITE)
def test_held_steps_leave_no_trace(spec: Architecture, loss: float) -> None:
    """After held steps a run goes on with the bits of one that never had them."""
    policy, runs = random_model(spec).policy(), RunColumns.of([RunConfig()])

    def follow(losses: dict[int, float]) -> tuple[list[float], bytes]:
        states, last = policy.init_state(1), np.full(1, np.nan)
        record = []
        for step, value in losses.items():
            last, states, held = advise(policy, states, np.array([step]), np.array([value]), last, runs)
            if not held[0]:
                record.append(float(last[0]))
        return record, states.tobytes()

    finite = {0: 2.0, 3: 1.5, 5: 1.2}
    assert follow(dict(enumerate([2.0, loss, loss, 1.5, loss, 1.2]))) == follow(finite)


@pytest.mark.parametrize(
    ("config", "expected"),
    [(RunConfig(), 0.0), (RunConfig(min_lr=1e-3), 1e-3), (RunConfig(max_lr=0.1), 0.0)],
)
@pytest.mark.parametrize("loss", NOT_FINITE)
def test_before_any_finite_loss_the_lower_bound_is_held(
    config: RunConfig, expected: float, loss: float
) -> None:
    """A run whose first loss is not finite gets its `min_lr`, or 0, so nothing moves its weights."""
    policy = random_model(SMALL[0]).policy()
    states = policy.init_state(1)
    lrs, moved, held = advise(
        policy,
        states,
        np.zeros(1, np.int64),
        np.array([loss]),
        np.array([math.nan]),
        RunColumns.of([config]),
    )
    assert held.all()
    assert lrs.tolist() == [expected]
    assert moved.tobytes() == states.tobytes()


@given(data=st.data())
@settings(max_examples=50)
def test_held_rows_change_no_neighbour(data: st.DataObject) -> None:
    """Rows with finite losses get the bits that they get in a batch where every loss is finite."""
    n = data.draw(st.integers(1, 40))
    policy = random_model(SMALL[2]).policy()
    runs = RunColumns.of([RunConfig(horizon=5)] * n)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    losses = rng.exponential(2.0, n)
    broken = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    start = (policy, policy.init_state(n), np.zeros(n, np.int64))
    whole, states, _ = advise(*start, losses, np.full(n, np.nan), runs)
    lrs, moved, held = advise(*start, np.where(broken, np.nan, losses), np.full(n, 0.5), runs)
    assert held.tolist() == broken.tolist()
    assert lrs[~broken].tobytes() == whole[~broken].tobytes()
    assert moved[~broken].tobytes() == states[~broken].tobytes()
    assert (lrs[broken] == 0.5).all()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RunConfig(scale=1.0, max_lr=1e-9), 1e-9),
        (RunConfig(scale=1.0, min_lr=5.0), 5.0),
        (RunConfig(scale=1.0, min_lr=0.125, max_lr=0.125), 0.125),
    ],
)
@pytest.mark.parametrize("company", [[], [math.nan]])
def test_bounds_clip_the_advice(config: RunConfig, expected: float, company: list[float]) -> None:
    """Advice is within [min_lr, max_lr], whether or not a neighbour is held."""
    policy, losses = random_model(SMALL[0]).policy(), np.array([2.0, *company])
    n = len(losses)
    lrs, _, _ = advise(
        policy,
        policy.init_state(n),
        np.zeros(n, np.int64),
        losses,
        np.full(n, math.nan),
        RunColumns.of([config] * n),
    )
    assert lrs[0] == expected


def test_bounds_do_not_touch_the_state() -> None:
    """A clipped run keeps the state of an unclipped one."""
    policy, runs = random_model(SMALL[0]).policy(), RunColumns.of([RunConfig(), RunConfig(max_lr=1e-9)])
    _, states, _ = advise(
        policy, policy.init_state(2), np.zeros(2, np.int64), np.full(2, 2.0), np.full(2, math.nan), runs
    )
    assert states[0].tobytes() == states[1].tobytes()


@settings(max_examples=50)
@given(losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_finite_losses_give_sane_rates(losses: list[float]) -> None:
    """Negative and huge losses, in any sequence, give finite learning rates in (0, 10]."""
    policy, runs = random_model(SMALL[0]).policy(), RunColumns.of([RunConfig(horizon=12)])
    states, last = policy.init_state(1), np.full(1, math.nan)
    for step, loss in enumerate(losses):
        last, states, held = advise(policy, states, np.array([step]), np.array([loss]), last, runs)
        assert not held.any()
        assert 0 < last[0] <= 10


def test_arguments_are_not_changed() -> None:
    """States, losses and last learning rates are the caller's: advice writes into none of them."""
    policy, runs = random_model(SMALL[0]).policy(), RunColumns.of([RunConfig()] * 3)
    arguments = (
        policy.init_state(3),
        np.zeros(3, np.int64),
        np.array([1.0, math.nan, 2.0]),
        np.array([math.nan, 0.1, 0.2]),
    )
    before = [argument.tobytes() for argument in arguments]
    advise(policy, *arguments, runs)
    assert [argument.tobytes() for argument in arguments] == before
