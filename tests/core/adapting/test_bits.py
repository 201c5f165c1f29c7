"""A run that goes on learning has the bits of its own observations and updates, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import MetaOrder
from mlrs_core.networks import Architecture
from mlrs_core.policy import NO_SIGNALS
from tests.core.adapting.following import HORIZON, bits, eventful, follow
from tests.core.adapting.oracles import adaptive
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs
from tests.core.test_batch_invariance import mixed_runs


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_until_its_first_update_a_run_is_a_frozen_one(spec: Architecture) -> None:
    """Learning rates and states have the frozen policy's bits, whatever the row of the networks holds."""
    model, rng = random_model(spec, 1), np.random.default_rng(0)
    configs = mixed_runs(9, rng)
    runs, frozen = Runs(adaptive(model), configs), Runs(model.policy(), configs)
    runs.networks[:] = np.nan
    size = frozen.policy.state_size
    for step in range(80):
        losses = np.where(rng.random(9) < 0.1, np.nan, rng.exponential(2.0, 9))
        assert runs.advise(step, losses).tobytes() == frozen.advise(step, losses).tobytes()
        assert runs.states[:, :size].tobytes() == frozen.states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), order=st.sampled_from(MetaOrder))
def test_neighbours_change_no_bit(spec: Architecture, seed: int, n: int, order: MetaOrder) -> None:
    """Runs that alternate with others in any order get the bits that each gets alone."""
    rng = np.random.default_rng(seed)
    policy, configs = (
        adaptive(random_model(spec, seed % 5), order=order, learning_rate=0.05),
        mixed_runs(n, rng),
    )
    events = [eventful(rng, int(rng.integers(0, 20))) for _ in range(n)]
    together, advised, at = Runs(policy, configs), [[] for _ in range(n)], [0] * n
    for row in rng.permutation(np.repeat(np.arange(n), [len(each) for each in events])):
        advised[row] += follow(together, row, [events[row][at[row]]], at[row])
        at[row] += 1
    for row in range(n):
        alone = Runs(policy, [configs[row]])
        assert bits(alone, 0, follow(alone, 0, events[row])) == bits(together, row, advised[row])


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_several_steps_in_one_call(spec: Architecture) -> None:
    """Runs that have been adapted advance by several steps in one call as they do call by call."""
    rng = np.random.default_rng(2)
    policy = adaptive(random_model(spec))
    one, other = Runs(policy, [HORIZON] * 3), Runs(policy, [HORIZON] * 3)
    for runs in (one, other):
        for row in range(2):
            follow(runs, row, eventful(np.random.default_rng(row), 10))
    rows, losses = rng.integers(0, 3, 40), rng.exponential(2.0, 40)
    lrs = np.empty(40)
    policy.advance(one.states, one.networks, one.table, rows, np.arange(10, 50), losses, NO_SIGNALS, lrs)
    for entry in range(40):
        assert other.advise(10 + entry, losses[[entry]], rows[[entry]])[0] == lrs[entry]
    assert one.states.tobytes() == other.states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), cut=st.integers(0, 59))
def test_saved_runs_go_on_with_the_same_bits(spec: Architecture, seed: int, cut: int) -> None:
    """From a state and network saved at any moment a run goes on, elsewhere, as if nothing had been."""
    events = eventful(np.random.default_rng(seed), 60)
    policy = adaptive(random_model(spec, seed % 5), learning_rate=0.05)
    whole, before = Runs(policy, [HORIZON]), Runs(policy, [HORIZON])
    advised = follow(whole, 0, events)
    first = follow(before, 0, events[:cut])
    after = Runs(adaptive(random_model(spec, seed % 5), learning_rate=0.05), [HORIZON] * 3)
    after.states[1], after.last[1] = before.states[0], before.last[0]
    if policy.meta_counters(before.states[0]).updates:
        after.networks[1] = before.networks[0]
    else:
        after.networks[1] = 7.0  # what another run may have left
    assert bits(after, 1, first + follow(after, 1, events[cut:], cut)) == bits(whole, 0, advised)
