"""The rules around a network's step: losses that are not finite, and bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.advise import advise
from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.networks import Architecture
from mlrs_core.policy import Policy, RunColumns
from mlrs_core.schedules.kernel import schedule_policy
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs

NOT_FINITE = [math.nan, math.inf, -math.inf]
EVERY_POLICY = [
    *(pytest.param(random_model(spec).policy(), id=label(spec)) for spec in SMALL),
    *(
        pytest.param(schedule_policy(ScheduleSpec(kind=kind)), id=kind.spelling)
        for kind in (ScheduleKind.COSINE, ScheduleKind.PLATEAU, ScheduleKind.GREEDY)
    ),
]


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_losses_that_are_not_finite_are_held(spec: Architecture) -> None:
    """NaN and infinities move no bit of the state and repeat the last learning rate."""
    runs = Runs(random_model(spec).policy(), [RunConfig(num_classes=10)] * 3)
    lrs = runs.advise(0, [2.3] * 3)
    before = runs.states.tobytes()
    assert runs.advise(1, NOT_FINITE).tobytes() == lrs.tobytes()
    assert runs.states.tobytes() == before


@pytest.mark.parametrize("spec", SMALL, ids=label)
@pytest.mark.parametrize("loss", NOT_FINITE)
def test_held_steps_leave_no_trace(spec: Architecture, loss: float) -> None:
    """After held steps a run goes on with the bits of one that never had them."""

    def follow(losses: dict[int, float]) -> tuple[list[float], bytes]:
        runs = Runs(random_model(spec).policy(), [RunConfig()])
        rates = {step: float(runs.advise(step, [value])[0]) for step, value in losses.items()}
        return [rates[step] for step, value in losses.items() if math.isfinite(value)], runs.states.tobytes()

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
    runs = Runs(policy, [config])
    assert runs.advise(0, [loss]).tolist() == [expected]
    assert runs.states.tobytes() == policy.init_state(1).tobytes()


@given(data=st.data())
@settings(max_examples=50)
def test_held_rows_change_no_neighbour(data: st.DataObject) -> None:
    """Rows with finite losses get the bits that they get in a batch where every loss is finite."""
    n = data.draw(st.integers(1, 40))
    policy = random_model(SMALL[2]).policy()
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    losses = rng.exponential(2.0, n)
    broken = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    whole, partly = (Runs(policy, [RunConfig(horizon=5)] * n) for _ in range(2))
    partly.last[:] = 0.5
    expected, lrs = whole.advise(0, losses), partly.advise(0, np.where(broken, np.nan, losses))
    assert lrs[~broken].tobytes() == expected[~broken].tobytes()
    assert partly.states[~broken].tobytes() == whole.states[~broken].tobytes()
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
    losses = [2.0, *company]
    runs = Runs(random_model(SMALL[0]).policy(), [config] * len(losses))
    assert runs.advise(0, losses)[0] == expected


def test_bounds_do_not_touch_the_state() -> None:
    """A clipped run keeps the state of an unclipped one."""
    runs = Runs(random_model(SMALL[0]).policy(), [RunConfig(), RunConfig(max_lr=1e-9)])
    runs.advise(0, [2.0, 2.0])
    assert runs.states[0].tobytes() == runs.states[1].tobytes()


@settings(max_examples=50)
@given(losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_finite_losses_give_sane_rates(losses: list[float]) -> None:
    """Negative and huge losses, in any sequence, give finite learning rates in (0, 10]."""
    runs = Runs(random_model(SMALL[0]).policy(), [RunConfig(horizon=12)])
    for step, loss in enumerate(losses):
        assert 0 < runs.advise(step, [loss])[0] <= 10


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_entries_of_one_run_are_taken_in_order(policy: Policy) -> None:
    """Several steps of a run in one call, mixed with others', give what they give call by call."""
    rng = np.random.default_rng(0)
    configs = [RunConfig(horizon=40, num_classes=10)] * 5
    rows = rng.integers(0, 5, 60)
    steps = np.array([(rows[:entry] == row).sum() for entry, row in enumerate(rows)])
    losses = rng.exponential(2.0, 60)
    losses[7] = np.nan
    together, one_by_one = Runs(policy, configs), Runs(policy, configs)
    lrs = advise(
        policy, together.states, together.networks, together.table, rows, steps, losses, together.last
    )
    expected = [
        one_by_one.advise(int(steps[entry]), losses[[entry]], rows[[entry]])[0] for entry in range(60)
    ]
    assert lrs.tobytes() == np.array(expected).tobytes()
    assert together.states.tobytes() == one_by_one.states.tobytes()
    assert together.last.tobytes() == one_by_one.last.tobytes()


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_only_states_and_rates_are_written(policy: Policy) -> None:
    """Rows, steps, losses and configs are the caller's; other runs' states and rates are left alone."""
    runs = Runs(policy, [RunConfig(horizon=40)] * 4)
    rows, steps, losses = np.array([2, 0]), np.zeros(2, np.int64), np.array([1.0, 2.0])
    given = (rows, steps, losses, runs.table)
    before, others = [array.tobytes() for array in given], runs.states[[1, 3]].tobytes()
    advise(policy, runs.states, runs.networks, runs.table, rows, steps, losses, runs.last)
    assert [array.tobytes() for array in given] == before
    assert runs.states[[1, 3]].tobytes() == others
    assert np.isnan(runs.last[[1, 3]]).all()


def test_step_changes_nothing() -> None:
    """The pure form gives new states, and writes into no argument."""
    policy, runs = random_model(SMALL[0]).policy(), RunColumns.of([RunConfig()] * 3)
    arguments = (policy.init_state(3), np.zeros(3, np.int64), np.array([1.0, 0.5, 2.0]))
    before = [argument.tobytes() for argument in arguments]
    _, moved = step_of(policy, *arguments, runs)
    assert [argument.tobytes() for argument in arguments] == before
    assert not np.shares_memory(moved, arguments[0])


@pytest.mark.parametrize("policy", EVERY_POLICY)
@settings(max_examples=20)
@given(offset=st.floats(-20, 20), losses=st.lists(st.floats(0.1, 10), min_size=1, max_size=9))
def test_an_offset_multiplies_every_rate(policy: Policy, offset: float, losses: list[float]) -> None:
    """A run's offset, in octaves, multiplies what the policy says, and moves no bit of its state."""
    plain, moved = (Runs(policy, [RunConfig(horizon=9, lr_offset=octaves)]) for octaves in (None, offset))
    for step, loss in enumerate(losses):
        assert moved.advise(step, [loss]) == plain.advise(step, [loss]) * 2.0**offset
    assert moved.states.tobytes() == plain.states.tobytes()


def test_bounds_come_after_the_offset() -> None:
    """What an offset makes of a learning rate stays within the run's bounds."""
    policy = schedule_policy(ScheduleSpec(kind=ScheduleKind.CONSTANT))
    spec = ScheduleSpec(kind=ScheduleKind.CONSTANT, base_lr=0.1)
    offsets = [-3.0, None, 3.0]
    runs = Runs(
        policy, [RunConfig(schedule=spec, lr_offset=octaves, min_lr=0.05, max_lr=0.2) for octaves in offsets]
    )
    assert runs.advise(0, [1.0] * 3).tolist() == [0.05, 0.1, 0.2]
