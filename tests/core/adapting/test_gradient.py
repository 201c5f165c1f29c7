"""The compiled gradients against autograd through the torch modules, and against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlrs_core.adapting.kernel import AdaptiveKernel
from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.networks import Architecture
from mlrs_core.networks.drift import DriftSpec
from tests.core.adapting.oracles import Seen, adaptive, distance, leaves_of, oracle_of, ours
from tests.core.networks.families import SPECS, label, random_model
from tests.core.runs import Runs

CONFIGS = [
    RunConfig(horizon=60, num_classes=10),
    RunConfig(scale=0.5, initial_lr=0.3, optimizer=Optimizer.ADAMW),
]


def traced(runs: Runs, policy: AdaptiveKernel, history: list[Seen]) -> list[Seen]:
    """Return the steps of a run since the one that its learning rate comes from."""
    trace = policy._learner.find(runs.states[0], runs.networks[0], runs.table, 0)[0]
    if policy._learner.traces == 1 or trace < 0:
        return history[-1:]
    kept = policy._traces(runs.states[0])[trace]
    step = int(kept[-4] + kept[-3] * 2**24 + kept[-2] * 2**48)
    return history[step:]


def compare(spec: Architecture, config: RunConfig, steps: int, seed: int) -> set[tuple[int, bool]]:
    """Hold the kernel against autograd at each step of a run.

    Returns:
        The traces that were met, and whether steps came after them.
    """
    model = random_model(spec, seed, snapshots=1 if isinstance(spec, DriftSpec) else 3)
    policy, oracle = adaptive(model), oracle_of(spec)
    history: list[Seen] = []
    runs, rng = Runs(policy, [config]), np.random.default_rng(seed)
    runs.networks[0] = policy.first_network()
    size, met = policy._learner.frozen_size, set()
    for step in range(steps):
        before = runs.states[:, :size].copy()
        loss = float(2 * np.exp(rng.normal(0, 0.2) - step / 30))
        runs.advise(step, [loss])
        history.append(Seen(before, runs.states[:, :size].copy(), loss, step))
        trace, snapshot, lr, gradient = ours(policy, runs.states[0], runs.networks[0], runs.table)
        since = traced(runs, policy, history)
        met.add((trace, len(since) > 1))
        leaves = leaves_of(model.snapshots[snapshot])
        rate = oracle(leaves, since, runs.table)
        assert lr == pytest.approx(float(rate.detach()), rel=1e-6)
        slopes = torch.autograd.grad(rate, list(leaves.values()))
        expected = {name: slope.numpy() for name, slope in zip(leaves, slopes, strict=True)}
        if trace < 0:
            assert not any(slope.any() for slope in expected.values())
        else:
            assert distance(gradient, expected) <= 1e-6
    return met


@pytest.mark.parametrize("config", CONFIGS, ids=["plain", "scaled"])
@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_gradient_is_autograds(spec: Architecture, config: RunConfig) -> None:
    """Over 45 steps d(lr)/d(weights) is within 1e-6 of autograd's, from the last step that counted on."""
    assert (0, False) in compare(spec, config, 45, 5)


def test_rates_that_are_held_or_only_move_come_from_an_earlier_tick() -> None:
    """The gradient is right between ticks, where a tick does not reach its aim, and where none has yet."""
    met = set()
    for seed in range(6):
        met |= compare(DriftSpec(hidden_size=6), RunConfig(), 150, seed)
    assert met == {(-1, False), (0, False), (0, True), (1, True)}


@pytest.mark.parametrize("spec", SPECS, ids=label)
def test_gradient_is_that_of_differences(spec: Architecture) -> None:
    """Along random directions the log learning rate of a trace changes as the gradient says."""
    policy, rng = adaptive(random_model(spec, 2)), np.random.default_rng(0)
    learner = policy._learner
    runs = Runs(policy, [RunConfig(horizon=90)])
    for step in range(30):
        runs.advise(step, [float(rng.exponential(2.0))])
    network, trace = policy.first_network(), policy._traces(runs.states[0])[:1]
    snapshot = learner.find(runs.states[0], network, runs.table, 0)[1]
    weights, gradient = policy._blocks(network, snapshot)[0], np.empty(learner.shared.shape[1])
    learner.slope(trace[0], runs.table, 0, weights, gradient)
    middle, levels = weights.copy(), np.empty((2, 1))
    for _ in range(20):
        way = 1e-5 * rng.normal(size=len(weights)) * (np.abs(gradient) > 0)
        moved = []
        for side, sign in enumerate((1, -1)):
            weights[:] = middle + sign * way
            moved.append(weights.astype(np.float64))
            learner.levels(trace, runs.table, 0, network, levels[side])
        said = float(gradient @ (moved[0] - moved[1]))
        size = float(np.abs(gradient * (moved[0] - moved[1])).sum())
        assert float(levels[0, 0] - levels[1, 0]) == pytest.approx(said, abs=3e-3 * size)
