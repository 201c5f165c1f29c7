"""A run's advice does not depend, bitwise, on which runs share its batch, how many, in what order."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_core.networks import Architecture
from mlrs_core.policy import Floats, Policy, States
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs

STEPS = 4
"""Steps of a comparison; a horizon of 6 takes a run through all three snapshots in them."""


def mixed_runs(n: int, rng: np.random.Generator) -> list[RunConfig]:
    """Return n configs that use every snapshot, scale rule and bound."""
    return [
        RunConfig(
            horizon=int(rng.integers(1, 7)) if rng.random() < 0.5 else None,
            num_classes=int(rng.integers(2, 1000)) if rng.random() < 0.5 else None,
            scale=float(rng.uniform(0.01, 2)) if rng.random() < 0.3 else None,
            snapshot=int(rng.integers(0, 3)) if rng.random() < 0.5 else None,
            max_lr=0.05 if rng.random() < 0.2 else None,
        )
        for _ in range(n)
    ]


def follow(
    policy: Policy, configs: list[RunConfig], losses: Floats, cuts: list[int]
) -> tuple[Floats, States]:
    """Return the learning rates and the last states of all runs, each batch cut up at `cuts`."""
    runs, rates = Runs(policy, configs), []
    for step, row in enumerate(losses):
        for start, stop in pairwise([0, *cuts, len(configs)]):
            runs.advise(step, row[start:stop], np.arange(start, stop))
        rates.append(runs.last.copy())
    return np.array(rates), runs.states


@pytest.mark.parametrize("spec", SMALL, ids=label)
@settings(max_examples=30)
@given(data=st.data())
def test_neighbours_number_and_order_change_no_bit(spec: Architecture, data: st.DataObject) -> None:
    """In any batch, permuted and cut up in any way, each run gets the bits of the whole batch."""
    n = data.draw(st.integers(1, 300), label="runs")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    cuts = data.draw(st.lists(st.integers(0, n), max_size=5), label="cuts")
    rng = np.random.default_rng(seed)
    policy, runs = random_model(spec, seed % 7).policy(), mixed_runs(n, rng)
    losses = rng.normal(2.0, 2.0, (STEPS, n))
    losses[rng.random(losses.shape) < 0.05] = np.nan
    whole, states = follow(policy, runs, losses, [])

    order = rng.permutation(n)
    cut, cut_states = follow(policy, [runs[row] for row in order], losses[:, order], sorted(cuts))
    back = np.argsort(order)
    assert cut[:, back].tobytes() == whole.tobytes()
    assert cut_states[back].tobytes() == states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_alone_equals_in_company(spec: Architecture) -> None:
    """A run advised alone gets the bits that it gets among 299 others, for every one of the 300."""
    rng = np.random.default_rng(11)
    policy, runs = random_model(spec).policy(), mixed_runs(300, rng)
    losses = rng.exponential(2.0, (3, 300))
    whole, states = follow(policy, runs, losses, [])
    alone, alone_states = follow(policy, runs, losses, list(range(1, 300)))
    assert alone.tobytes() == whole.tobytes()
    assert alone_states.tobytes() == states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_equal_runs_get_equal_bits(spec: Architecture) -> None:
    """Runs with the same config and losses get the same bits in every row of one batch."""
    policy = random_model(spec).policy()
    runs = Runs(policy, [RunConfig(horizon=9, num_classes=10)] * 157)
    for step, loss in enumerate(np.random.default_rng(2).exponential(2.0, 9)):
        assert len(np.unique(runs.advise(step, np.full(157, loss)))) == 1
        assert len(np.unique(runs.states, axis=0)) == 1


AGAIN = """
import sys
import numpy as np
from tests.core.networks.families import SMALL, random_model
from tests.core.test_batch_invariance import follow, mixed_runs
rng = np.random.default_rng(4)
policy, runs = random_model(SMALL[int(sys.argv[1])]).policy(), mixed_runs(50, rng)
rates, states = follow(policy, runs, rng.exponential(2.0, (60, 50)), [7, 31])
print((rates.tobytes() + states.tobytes()).hex())
"""


@pytest.mark.parametrize(
    "number",
    [  # two processes each, so all but one shape are among the slow tests
        pytest.param(number, id=label(spec), marks=[] if number == len(SMALL) - 1 else pytest.mark.slow)
        for number, spec in enumerate(SMALL)
    ],
)
def test_another_process_gets_the_same_bits(number: int) -> None:
    """After a restart, by a process of its own, runs get the bits that they got before."""
    outputs = [
        subprocess.run([sys.executable, "-c", AGAIN, str(number)], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    rng = np.random.default_rng(4)
    runs = mixed_runs(50, rng)
    rates, states = follow(random_model(SMALL[number]).policy(), runs, rng.exponential(2.0, (60, 50)), [])
    assert {*outputs} == {f"{(rates.tobytes() + states.tobytes()).hex()}\n".encode()}
