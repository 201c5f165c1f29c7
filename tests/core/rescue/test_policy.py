"""A policy with the detectors around it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import MetaConfig, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.networks import Architecture
from mlrs_core.policy import COLUMNS, NO_SIGNALS, Floats, Policy, Signals
from mlrs_core.rescue import RescuingPolicy, share_of
from mlrs_core.rescue.policy import Alarms
from mlrs_core.schedules.kernel import schedule_policy
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs
from tests.core.test_batch_invariance import follow, mixed_runs

COSINE = ScheduleSpec(ScheduleKind.COSINE)
SPECS = (*SMALL, COSINE)
"""What policies are made of."""
WITH_META = [(spec, None) for spec in SPECS] + [(spec, MetaConfig().resolved()) for spec in SMALL]
"""The same, and networks in meta mode."""


def policy_of(spec: Architecture | ScheduleSpec, meta: MetaConfig | None = None) -> Policy:
    """Return a policy of an architecture, perhaps in meta mode, or of a schedule."""
    if isinstance(spec, ScheduleSpec):
        return schedule_policy(spec)
    model = random_model(spec)
    return model.policy() if meta is None else model.adaptive_policy(meta)


def name_of(spec: Any) -> str:
    """Return the name of a parameter, for the names of tests."""
    if isinstance(spec, (ScheduleSpec, MetaConfig)):
        return "schedule" if isinstance(spec, ScheduleSpec) else "meta"
    return "frozen" if spec is None else label(spec)


def followed(policy: RescuingPolicy, losses: Floats, signals: Signals = NO_SIGNALS) -> tuple[Floats, Alarms]:
    """Return the learning rates and the alarms of one run, all of whose steps come at once."""
    runs = Runs(policy, [RunConfig(horizon=200, num_classes=10)])
    n = len(losses)
    lrs, alarms, rows = np.full(n, np.nan), np.zeros(n, np.uint8), np.zeros(n, np.int64)
    policy.advance(runs.states, runs.networks, runs.table, rows, np.arange(n), losses, signals, lrs, alarms)
    return lrs, alarms


@pytest.mark.parametrize(("spec", "meta"), WITH_META, ids=name_of)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 40))
def test_without_alarms_the_bits_are_the_other_policys(
    spec: Architecture | ScheduleSpec, meta: MetaConfig | None, seed: int, n: int
) -> None:
    """Learning rates, states and networks of runs that raise no alarm are those without the detector."""
    rng = np.random.default_rng(seed)
    inner, configs = policy_of(spec, meta), [RunConfig(horizon=50, num_classes=10)] * n
    wrapped = RescuingPolicy(inner)
    plain, watched = Runs(inner, configs), Runs(wrapped, configs)
    for step, losses in enumerate(rng.uniform(1.0, 3.0, (12, n))):
        rows = rng.permutation(n)[: rng.integers(1, n + 1)]
        lrs = plain.advise(step, losses[rows], rows)
        assert watched.advise(step, losses[rows], rows).tobytes() == lrs.tobytes()
    assert watched.states[:, : inner.state_size].tobytes() == plain.states.tobytes()
    assert watched.networks.tobytes() == plain.networks.tobytes()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_each_alarm_halves_the_rate(spec: Architecture | ScheduleSpec) -> None:
    """From an alarm on, learning rates are half of what they would be, and after the third an eighth."""
    inner = policy_of(spec)
    losses = np.random.default_rng(1).uniform(1.0, 2.0, 200)
    losses[[19, 20, 79, 80, 139, 140, 194, 195]] = math.nan
    lrs, alarms = followed(RescuingPolicy(inner), losses)
    plain, finite = Runs(inner, [RunConfig(horizon=200, num_classes=10)]), np.isfinite(losses)
    whole = np.array([plain.advise(step, [loss])[0] for step, loss in enumerate(losses)])
    assert np.flatnonzero(alarms).tolist() == [20, 80, 140]
    shares = 0.5 ** np.cumsum(alarms)
    assert (lrs[finite] == (whole * shares)[finite]).all()


def test_a_restored_state_is_read_from_the_signals() -> None:
    """The column `restored` of an observation ends the wait after an alarm."""
    losses, signals = np.ones(50), np.full((50, len(COLUMNS)), np.nan)
    losses[[19, 20, 29, 30]] = math.nan
    policy = RescuingPolicy(policy_of(COSINE))
    assert np.flatnonzero(followed(policy, losses)[1]).tolist() == [20]
    signals[21, COLUMNS.index("restored")] = 1.0
    assert np.flatnonzero(followed(policy, losses, signals)[1]).tolist() == [20, 30]


@pytest.mark.parametrize(("spec", "meta"), WITH_META, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_neighbours_number_and_order_change_no_bit(
    spec: Architecture | ScheduleSpec, meta: MetaConfig | None, data: st.DataObject
) -> None:
    """In any batch, permuted and cut up in any way, each run gets the bits of the whole batch."""
    n = data.draw(st.integers(1, 60), label="runs")
    cuts = data.draw(st.lists(st.integers(0, n), max_size=5), label="cuts")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    policy = RescuingPolicy(policy_of(spec, meta))
    runs = [RunConfig(horizon=9)] * n if isinstance(spec, ScheduleSpec) else mixed_runs(n, rng)
    losses = rng.normal(2.0, 2.0, (8, n))
    losses[rng.random(losses.shape) < 0.1] = np.nan
    whole, states = follow(policy, runs, losses, [])
    order = rng.permutation(n)
    cut, cut_states = follow(policy, [runs[row] for row in order], losses[:, order], sorted(cuts))
    back = np.argsort(order)
    assert cut[:, back].tobytes() == whole.tobytes()
    assert cut_states[back].tobytes() == states.tobytes()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_several_steps_of_several_runs_in_one_call(spec: Architecture | ScheduleSpec) -> None:
    """Steps of runs that come in one call, mixed, give the bits that they give one after the other."""
    policy, rng = RescuingPolicy(policy_of(spec)), np.random.default_rng(3)
    configs = [RunConfig(horizon=50, num_classes=10)] * 4
    losses = rng.uniform(1.0, 2.0, (10, 4))
    losses[5:7, 2] = math.nan
    one, all_at_once = Runs(policy, configs), Runs(policy, configs)
    singly = np.array(
        [
            [one.advise(step, [losses[step, row]], np.array([row]))[0] for row in range(4)]
            for step in range(10)
        ]
    )
    rows, steps, lrs = np.tile(np.arange(4), 10), np.repeat(np.arange(10), 4), np.full(40, np.nan)
    table, networks = all_at_once.table, all_at_once.networks
    policy.advance(all_at_once.states, networks, table, rows, steps, losses.ravel(), NO_SIGNALS, lrs)
    finite = np.isfinite(losses)
    assert lrs.reshape(10, 4)[finite].tobytes() == singly[finite].tobytes()
    assert all_at_once.states.tobytes() == one.states.tobytes()


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_the_twin_for_other_threads_gives_the_same_bits(spec: Architecture | ScheduleSpec) -> None:
    """A policy for long work on another thread gives the learning rates and the alarms of the first."""
    policy = RescuingPolicy(policy_of(spec))
    losses = np.random.default_rng(2).uniform(1.0, 2.0, 100)
    losses[49:51] = math.inf
    assert np.flatnonzero(followed(policy, losses)[1]).tolist() == [50]
    for mine, theirs in zip(followed(policy, losses), followed(policy.background(), losses), strict=True):
        assert mine.tobytes() == theirs.tobytes()


def overfitted(n: int) -> Signals:
    """Return the signals of a run of 200 steps, validated every 10, that overfits from step 50 to 100."""
    signals = np.full((n, len(COLUMNS)), np.nan)
    steps = np.arange(10, n, 10)
    signals[steps, COLUMNS.index("validation_loss")] = np.where(
        steps <= 100, 1.0 + np.abs(steps - 50) / 100, 1.0
    )
    return signals


def test_overfitting_raises_an_alarm_and_quarters_the_rate() -> None:
    """Rates fall while a rise of validation losses is checked, and are a quarter from the alarm on."""
    policy, losses = RescuingPolicy(policy_of(COSINE)), np.linspace(2.0, 1.0, 200)
    plain, _ = followed(policy, losses)
    lrs, alarms = followed(policy, losses, overfitted(200))
    assert np.flatnonzero(alarms).tolist() == [100]
    shares = lrs / plain
    assert (shares[:80] == 1.0).all()
    assert (np.diff(shares[80:91]) < 0.0).all()
    assert shares[99] == pytest.approx(0.1)
    assert (shares[100:] == 0.25).all()


def test_a_restored_state_ends_a_check() -> None:
    """Validation losses are compared anew from there on, and learning rates are the policy's again."""
    policy, losses = RescuingPolicy(policy_of(COSINE)), np.linspace(2.0, 1.0, 200)
    signals = overfitted(200)
    signals[91, COLUMNS.index("restored")] = 1.0
    lrs, alarms = followed(policy, losses, signals)
    plain, _ = followed(policy, losses)
    assert not alarms.any()
    assert (lrs[90] / plain[90], lrs[91]) == (pytest.approx(0.1), plain[91])


def test_blow_ups_and_overfitting_lower_the_rate_together() -> None:
    """A run that does both is at an eighth, and its state tells so at each step, also in a check."""
    policy, losses = RescuingPolicy(policy_of(COSINE)), np.linspace(2.0, 1.0, 200)
    losses[19:21] = math.nan
    signals = overfitted(200)
    lrs, alarms = followed(policy, losses, signals)
    plain, _ = followed(policy, np.linspace(2.0, 1.0, 200))
    assert np.flatnonzero(alarms).tolist() == [20, 100]
    runs = Runs(policy, [RunConfig(horizon=200, num_classes=10)])
    for step in range(200):
        told, lr = signals[step : step + 1], np.empty(1)
        one = (np.zeros(1, np.int64), np.array([step]), losses[step : step + 1], told, lr)
        policy.advance(runs.states, runs.networks, runs.table, *one)
        if math.isfinite(losses[step]):
            assert lr[0] == lrs[step] == pytest.approx(plain[step] * share_of(runs.states[0], step, 200))
    assert share_of(runs.states[0], 199, 200) == 0.125


def test_the_share_of_a_state() -> None:
    """A state tells what its run's learning rates are multiplied by."""
    policy = RescuingPolicy(policy_of(COSINE))
    runs = Runs(policy, [RunConfig(horizon=200)])
    assert share_of(runs.states[0], 0, 200) == 1.0
    runs.advise(0, [math.nan])
    assert share_of(runs.states[0], 1, 200) == 1.0
    runs.advise(1, [math.nan])
    assert share_of(runs.states[0], 2, 200) == 0.5
