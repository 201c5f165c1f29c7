"""What is special to the tail network: its schedule, signals and validation losses, and runs of all kinds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.advise import step as step_of
from mlrs_core.config import FoundRate, Optimizer, RunConfig
from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.tail import TailSpec
from mlrs_core.networks.tail.constants import TailConstants
from mlrs_core.networks.tail.kernel import TailKernel
from mlrs_core.networks.tail.reference import Observed, TailReference, TailRuns
from mlrs_core.policy import COLUMNS, NO_SIGNALS, Floats, RunColumns, Signals
from tests.core.networks.families import random_weights

SPEC = TailSpec(hidden_size=6)
WEIGHTS = random_weights(SPEC, np.random.default_rng(5), gain=3.0)
NOTHING = {name: np.zeros(shape, np.float32) for name, shape in SPEC.weight_shapes().items()}
VALIDATION = COLUMNS.index("validation_loss")


def columns_in_torch(columns: RunColumns) -> TailRuns:
    """Return the same configs for the oracle."""
    return TailRuns(
        horizon=torch.from_numpy(columns.horizon),
        log_classes=torch.from_numpy(columns.log_classes),
        start=torch.from_numpy(columns.initial_lr),
        octaves=torch.from_numpy(columns.octaves),
        optimizer=torch.from_numpy(columns.optimizer),
        momentum=torch.from_numpy(columns.momentum),
    )


def any_signals(rng: np.random.Generator, n: int) -> Signals:
    """Return what came with n observations: each number may be missing, infinite, huge or tiny."""
    sizes = 10 ** rng.uniform(-30, 30, (n, len(COLUMNS))) * rng.choice([-1, 1], (n, len(COLUMNS)))
    sizes[:, :3] = np.abs(sizes[:, :3])
    sizes[:, 5] = rng.normal(-3, 3, n)
    sizes[:, VALIDATION] = rng.exponential(2.0, n) * np.where(rng.random(n) < 0.1, -1, 1)
    odd = rng.random(sizes.shape)
    return np.where(odd < 0.05, np.nan, np.where(odd < 0.06, np.inf, sizes))


def rates_of(
    losses: Floats,
    config: RunConfig,
    weights: dict[str, npt.NDArray[np.float32]],
    signals: Signals = NO_SIGNALS,
) -> Floats:
    """Return the learning rates of one run over some losses, with the same signals at every step."""
    policy = TailKernel(SPEC, [weights])
    runs, states, rates = RunColumns.of([config]), policy.init_state(1), []
    for step, loss in enumerate(losses):
        lrs, states = step_of(policy, states, np.array([step]), np.array([loss]), runs, signals)
        rates.append(lrs[0])
    return np.array(rates)


@pytest.mark.parametrize("shown", ["losses", "signals", "validations", "all", "now and then"])
def test_kernel_agrees_with_oracle_whatever_is_shown(shown: str) -> None:
    """Over 500 steps, runs of all kinds side by side stay within 1e-6 of the torch module."""
    rng, n = np.random.default_rng(3), 60
    configs = [
        RunConfig(
            horizon=None if row % 4 == 0 else int(rng.integers(1, 4000)),
            num_classes=None if row % 3 == 0 else int(rng.integers(2, 1000)),
            initial_lr=None if row % 2 else float(10 ** rng.uniform(-8, 3)),
            optimizer=Optimizer(row % len(Optimizer)),
            momentum=None if row % 5 else float(rng.uniform(0, 1)),
            found=None if row % 6 else FoundRate(learning_rate=0.03, octaves=1.0, steps=5),
        )
        for row in range(n)
    ]
    columns = RunColumns.of(configs)
    policy, oracle, runs = TailKernel(SPEC, [WEIGHTS]), TailReference(SPEC), columns_in_torch(columns)
    wide = {name: torch.from_numpy(weight).double() for name, weight in WEIGHTS.items()}
    states, state = policy.init_state(n), oracle.init_state(n)
    scale, offset = 10 ** rng.uniform(-6, 6, n), np.where(np.arange(n) % 7, 0, 300)
    for step in range(500):
        noise = np.exp(rng.normal(0, 0.3, n) + 4 * (rng.random(n) < 0.01))
        losses = (noise * (1 + 2 / (1 + step / 50)) - offset) * scale
        signals = any_signals(rng, n)
        signals[:, VALIDATION] *= scale
        if shown in ("losses", "validations"):
            signals[:, :VALIDATION] = np.nan
        if shown in ("losses", "signals"):
            signals[:, VALIDATION] = np.nan
        if shown == "now and then":
            signals[rng.random(n) < 0.9] = np.nan
        given_signals = NO_SIGNALS if shown == "losses" and step % 2 else signals
        lrs, states = step_of(policy, states, np.full(n, step), losses, columns, given_signals)
        observed = Observed(
            torch.from_numpy(losses),
            torch.from_numpy(signals[:, :VALIDATION]),
            torch.from_numpy(signals[:, VALIDATION]),
        )
        expected, state = oracle.step(wide, state, observed, step, runs)
        np.testing.assert_allclose(lrs, expected.numpy(), rtol=1e-6, atol=0, err_msg=f"step {step}")


def test_without_weights_it_is_the_schedule() -> None:
    """With weights of 0 a run gets warmup, a level stretch and a cooldown, whatever its losses are."""
    lrs = rates_of(
        np.random.default_rng(0).exponential(1, 100), RunConfig(horizon=100, initial_lr=0.5), NOTHING
    )
    np.testing.assert_allclose(lrs[:5], 0.5 * np.arange(1, 6) / 5)
    np.testing.assert_allclose(lrs[5:81], 0.5)
    share = np.arange(1, 20) / 20
    np.testing.assert_allclose(lrs[81:], 0.5 * (1 - np.sqrt(share)), rtol=1e-6)


def test_beyond_the_horizon_the_last_learning_rate_holds() -> None:
    """A run that goes on past its horizon keeps a learning rate above 0."""
    lrs = rates_of(np.ones(60), RunConfig(horizon=40), NOTHING)
    assert (lrs[39:] == lrs[39]).all()
    assert lrs[39] > 0


def test_an_unknown_horizon_has_no_cooldown() -> None:
    """A run without a horizon stays at its level."""
    lrs = rates_of(np.ones(400), RunConfig(initial_lr=0.1), NOTHING)
    np.testing.assert_allclose(lrs[20:], 0.1)


@given(scale=st.floats(1e-12, 1e12), seed=st.integers(0, 99))
def test_signals_count_in_ratios(scale: float, seed: int) -> None:
    """Products over norms do not depend on the unit of the weights, so advice does not, either."""
    rng = np.random.default_rng(seed)
    losses, signals = rng.exponential(1, 40), np.full((1, len(COLUMNS)), np.nan)
    signals[0, :6] = 1e-3, 5.0, 2.0, -0.03, 0.02, -4.0
    other = signals.copy()
    other[0, [0, 1, 3, 4]] *= [scale**2, scale**2, scale, scale]
    config = RunConfig(horizon=60)
    np.testing.assert_allclose(
        rates_of(losses, config, WEIGHTS, signals), rates_of(losses, config, WEIGHTS, other), rtol=1e-5
    )


@pytest.mark.parametrize("which", ["signals", "validation"])
def test_what_is_shown_matters(which: str) -> None:
    """A network with weights gives other advice where signals, or validation losses, are sent."""
    signals = np.full((1, len(COLUMNS)), np.nan)
    if which == "signals":
        signals[0, :6] = 1e-3, 5.0, 2.0, -0.03, 0.02, -4.0
    else:
        signals[0, VALIDATION] = 2.0
    config = RunConfig(horizon=60)
    plain, shown = (rates_of(np.ones(30), config, WEIGHTS, which) for which in (NO_SIGNALS, signals))
    assert not np.allclose(plain, shown, rtol=1e-3)


@given(
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30),
    columns=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=7, max_size=7),
)
def test_any_numbers_give_finite_advice(losses: list[float], columns: list[float]) -> None:
    """Whatever is sent, a finite loss gets a finite learning rate above 0, and the state stays finite."""
    policy = TailKernel(SPEC, [WEIGHTS])
    runs, states = RunColumns.of([RunConfig(horizon=20)]), policy.init_state(1)
    for step, loss in enumerate(losses):
        lrs, states = step_of(policy, states, np.array([step]), np.array([loss]), runs, np.array([columns]))
        assert np.isfinite(states).all()
        assert not math.isfinite(loss) or 0 < lrs[0] < math.inf


def test_constants_are_checked() -> None:
    """A constant out of range, of a wrong type, or missing from a file is named."""
    with pytest.raises(InvalidFieldError, match=r"constants\.pace"):
        TailConstants(pace=-1.0)
    with pytest.raises(InvalidFieldError, match=r"constants\.looks"):
        TailConstants(looks=2.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidFieldError, match=r"constants\.soft_steps"):
        TailConstants(soft_steps=(1.0,))
    numbers = TailSpec().to_json()["constants"]
    with pytest.raises(InvalidFieldError, match="missing: \\['pace'\\]"):
        TailSpec(constants={name: value for name, value in numbers.items() if name != "pace"})  # type: ignore[arg-type]
    assert TailSpec(constants=numbers) == TailSpec()
