"""What is special to the drift network: configs, ticks, and losses of any scale."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.advise import step as step_of
from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.drift.constants import EXTRAS
from mlrs_core.networks.drift.kernel import DriftKernel
from mlrs_core.networks.drift.memory import is_due
from mlrs_core.networks.drift.reference import DriftReference, DriftRuns
from mlrs_core.networks.drift.state_layout import AGE, COUNT, HIGH, LOW
from mlrs_core.networks.drift.table import constants_table
from mlrs_core.policy import Floats, RunColumns, table_of
from tests.core.networks.families import random_weights
from tests.core.runs import Runs

SPEC = DriftSpec(hidden_size=6)
FIXED = SPEC.constants
WEIGHTS = random_weights(SPEC, np.random.default_rng(5), gain=3.0)


def columns_in_torch(columns: RunColumns) -> DriftRuns:
    """Return the same configs for the oracle."""
    return DriftRuns(
        horizon=torch.from_numpy(columns.horizon),
        log_classes=torch.from_numpy(columns.log_classes),
        initial_lr=torch.from_numpy(columns.initial_lr),
        optimizer=torch.from_numpy(columns.optimizer),
        momentum=torch.from_numpy(columns.momentum),
    )


def rates_of(losses: Floats, config: RunConfig, *, spec: DriftSpec = SPEC) -> npt.NDArray[np.float64]:
    """Return the learning rates of one run over some losses."""
    policy = DriftKernel(spec, [random_weights(spec, np.random.default_rng(5), gain=3.0)])
    runs, states, rates = RunColumns.of([config]), policy.init_state(1), []
    for step, loss in enumerate(losses):
        lrs, states = step_of(policy, states, np.array([step]), np.array([loss]), runs)
        rates.append(lrs[0])
    return np.array(rates)


def test_kernel_agrees_with_oracle_whatever_the_configs() -> None:
    """Over 700 steps, runs of all kinds side by side stay within 1e-6 of the torch module."""
    rng, n = np.random.default_rng(3), 60
    configs = [
        RunConfig(
            horizon=None if row % 4 == 0 else int(rng.integers(1, 4000)),
            num_classes=None if row % 3 == 0 else int(rng.integers(2, 1000)),
            initial_lr=None if row % 2 else float(10 ** rng.uniform(-8, 3)),
            optimizer=Optimizer(row % len(Optimizer)),
            momentum=None if row % 5 else float(rng.uniform(0, 1)),
        )
        for row in range(n)
    ]
    columns = RunColumns.of(configs)
    policy, oracle, runs = DriftKernel(SPEC, [WEIGHTS]), DriftReference(SPEC), columns_in_torch(columns)
    wide = {name: torch.from_numpy(weight).double() for name, weight in WEIGHTS.items()}
    states, state = policy.init_state(n), oracle.init_state(n)
    scale, offset = 10 ** rng.uniform(-6, 6, n), np.where(np.arange(n) % 7, 0, 300)
    for step in range(700):
        noise = np.exp(rng.normal(0, 0.3, n) + 4 * (rng.random(n) < 0.01))
        losses = (noise * (1 + 2 / (1 + step / 50)) - offset) * scale
        lrs, states = step_of(policy, states, np.full(n, step), losses, columns)
        expected, state = oracle.step(wide, state, torch.from_numpy(losses), step, runs)
        np.testing.assert_allclose(lrs, expected.numpy(), rtol=2e-7, atol=1e-12, err_msg=f"step {step}")


@given(exponent=st.floats(-6, 6), seed=st.integers(0, 99))
def test_losses_count_in_units_of_the_first(exponent: float, seed: int) -> None:
    """Without a class count, losses a million times larger or smaller get the same learning rates."""
    losses = np.exp(np.random.default_rng(seed).normal(0, 0.5, 60))
    config = RunConfig(horizon=60)
    np.testing.assert_allclose(rates_of(losses, config), rates_of(losses * 10**exponent, config), rtol=1e-3)


def ticks_of(config: RunConfig, steps: int, losses: Floats | None = None) -> list[int]:
    """Return the steps at which a run ticks; under equal losses unless given."""
    policy, runs = DriftKernel(SPEC, [WEIGHTS]), RunColumns.of([config])
    states, age, ticks = policy.init_state(1), 0.0, []
    for step in range(steps):
        loss = 1.0 if losses is None else losses[step]
        _, states = step_of(policy, states, np.array([step]), np.array([loss]), runs)
        after = states[0, 2 * SPEC.hidden_size + AGE]
        if after > age:
            ticks.append(step)
        age = after
    return ticks


def test_short_runs_tick_at_each_step() -> None:
    """A run of up to 200 steps looks at each of its losses."""
    assert ticks_of(RunConfig(horizon=200), 200) == list(range(200))


def due_steps(horizon: int, steps: int) -> npt.NDArray[np.int64]:
    """Return the steps of a run at which it is time for a tick, by the kernel's own rule."""
    run = table_of([RunConfig(horizon=horizon if horizon > 0 else None)])[0]
    memory, ticks, fixed = np.zeros(EXTRAS, np.float32), [], constants_table(SPEC)[0]
    for step in range(steps):
        memory[COUNT] += 1
        if is_due(memory, step, run, fixed):
            ticks.append(step)
            memory[COUNT], memory[AGE] = 0, 1
    return np.array(ticks)


@pytest.mark.parametrize(("horizon", "count"), [(1000, 304), (4000, 376), (20_000, 457), (100_000, 537)])
def test_long_runs_look_alike(horizon: int, count: int) -> None:
    """Gaps are 1 at first, then a 50th of the steps so far, then a 200th of the horizon, whatever that is."""
    ticks = due_steps(horizon, horizon)
    gaps = np.diff(ticks)
    assert (gaps[:99] == 1).all()
    assert (gaps <= np.maximum(ticks[1:] // 50, 1)).all()
    assert (gaps >= np.minimum(ticks[:-1] // 50, horizon // 200)).all()
    assert (gaps[ticks[:-1] > horizon / 3] == horizon // 200).all()
    assert len(ticks) == count


def test_unknown_horizon_ticks_ever_more_slowly_and_for_ever() -> None:
    """Without a horizon the gap is a hundredth of the steps so far, however many these are."""
    ticks = due_steps(-1, 60_000)
    gaps = np.diff(ticks)
    late = ticks[1:] > 1000
    assert (np.abs(gaps[late] / ticks[1:][late] - 0.01) < 0.002).all()
    assert ticks[-1] > 59_000


@pytest.mark.parametrize("step", [1, 101, 30_001])
def test_first_loss_ticks_whenever_it_comes(step: int) -> None:
    """A run whose losses before were all held gets a positive rate from its first finite one."""
    policy, runs = DriftKernel(SPEC, [WEIGHTS]), RunColumns.of([RunConfig(horizon=100_000)])
    lrs, states = step_of(policy, policy.init_state(1), np.array([step]), np.array([1.0]), runs)
    assert lrs[0] > 1e-6
    assert states[0, 2 * SPEC.hidden_size + AGE] == 1


def test_rows_that_do_not_tick_change_no_bit_of_those_that_do() -> None:
    """Late in runs of many horizons, when some tick and some do not, each gets the bits it gets alone."""
    rng, n, first = np.random.default_rng(1), 21, 500
    configs = [RunConfig(horizon=None if row % 3 == 0 else int(rng.integers(600, 9000))) for row in range(n)]
    together, alone = (Runs(DriftKernel(SPEC, [WEIGHTS]), configs) for _ in range(2))
    age, mixed = 2 * SPEC.hidden_size + AGE, 0
    for step in range(first, first + 80):
        losses = np.exp(rng.normal(0, 0.3, n) + 4 * (rng.random(n) < 0.02))
        before = together.states[:, age].copy()
        lrs = together.advise(step, losses)
        mixed += 0 < (together.states[:, age] > before).sum() < n
        each = [alone.advise(step, losses[[row]], np.array([row])) for row in range(n)]
        assert np.concatenate(each).tobytes() == lrs.tobytes()
        assert alone.states.tobytes() == together.states.tobytes()
    assert mixed > 20


def test_explosion_ticks_at_once() -> None:
    """A loss far above its average moves the learning rate at that step, between ticks."""
    losses = np.ones(4000)
    losses[3010:] = 20.0
    assert 3010 not in ticks_of(RunConfig(horizon=4000), 3020)
    assert 3010 in ticks_of(RunConfig(horizon=4000), 3020, losses)
    rates = rates_of(losses[:3020], RunConfig(horizon=4000))
    assert rates[3009] == rates[3008]
    assert rates[3010] != rates[3009]


def test_progress_network_does_not_see_losses() -> None:
    """With inputs `progress` the learning rates are the same whatever the losses are."""
    spec, rng = DriftSpec(hidden_size=6, inputs="progress"), np.random.default_rng(0)
    config = RunConfig(horizon=300, num_classes=10)
    one, other = (rates_of(losses, config, spec=spec) for losses in (np.ones(300), rng.exponential(9.0, 300)))
    assert (one == other).all()
    assert one.std() > 0


def test_loss_network_does_not_see_progress() -> None:
    """With inputs `loss` two horizons that tick alike get the same learning rates."""
    spec = DriftSpec(hidden_size=6, inputs="loss")
    losses = np.random.default_rng(0).exponential(2.0, 90)
    one, other = (rates_of(losses, RunConfig(horizon=horizon), spec=spec) for horizon in (100, 190))
    assert (one == other).all()
    assert (one != rates_of(losses, RunConfig(horizon=190))).any()


@given(
    losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    initial_lr=st.none() | st.floats(1e-300, 1e300),
    horizon=st.none() | st.integers(1, 2**53),
    optimizer=st.sampled_from(list(Optimizer)),
    seed=st.integers(0, 3),
    first=st.integers(0, 10**6),
)
def test_rates_are_bounded_whatever_happens(
    losses: list[float],
    initial_lr: float | None,
    horizon: int | None,
    optimizer: Optimizer,
    seed: int,
    first: int,
) -> None:
    """Under any finite losses a rate is finite, positive, and at most e^7 times its family's default one.

    So over T steps their squares add up to at most T (e^7 default)^2: what finite horizons need.
    """
    config = RunConfig(initial_lr=initial_lr, horizon=horizon, optimizer=optimizer)
    default = {Optimizer.MOMENTUM: 0.01, Optimizer.NESTEROV: 0.01, Optimizer.SGD: 0.1}.get(optimizer)
    if default is None:
        default = 0.1 if optimizer is Optimizer.UNSPECIFIED else 1e-3
    weights = random_weights(SPEC, np.random.default_rng(seed), gain=30.0)
    policy, runs = DriftKernel(SPEC, [weights]), RunColumns.of([config])
    states, rates = policy.init_state(1), []
    for step, loss in enumerate(losses, first):
        lrs, states = step_of(policy, states, np.array([step]), np.array([loss]), runs)
        rates.append(lrs[0])
    assert np.isfinite(rates).all()
    assert min(rates) > 0
    assert max(rates) <= default * math.exp(FIXED.max_drift) * (1 + 1e-6)


@given(losses=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=60), seed=st.integers(0, 3))
def test_rate_moves_gradually(losses: list[float], seed: int) -> None:
    """From a step to the next the rate rises by at most a factor of e^0.2, and falls by at most e^0.6."""
    weights = random_weights(SPEC, np.random.default_rng(seed), gain=30.0)
    policy, runs = DriftKernel(SPEC, [weights]), RunColumns.of([RunConfig()])
    states, drift = policy.init_state(1), -math.log(FIXED.warmup)
    for step, loss in enumerate(losses):
        _, states = step_of(policy, states, np.array([step]), np.array([loss]), runs)
        extras = states[0, 2 * SPEC.hidden_size :].astype(float)
        after = extras[HIGH] + extras[LOW]
        assert -FIXED.fall - 1e-6 <= after - drift <= FIXED.rise + 1e-6
        drift = after
