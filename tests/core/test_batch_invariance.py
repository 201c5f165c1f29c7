"""A run's advice does not depend, bitwise, on which runs share its batch, how many, in what order."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.advise import advise
from mlrs_core.architectures import Architecture
from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy, RunColumns, States
from tests.core.families import SMALL, label, random_model

STEPS = 4
"""Steps of a comparison; a horizon of 6 takes a run through all three snapshots in them."""


def mixed_runs(n: int, rng: np.random.Generator) -> RunColumns:
    """Return n configs that use every snapshot, scale rule and bound."""
    return RunColumns.of(
        [
            RunConfig(
                horizon=int(rng.integers(1, 7)) if rng.random() < 0.5 else None,
                num_classes=int(rng.integers(2, 1000)) if rng.random() < 0.5 else None,
                scale=float(rng.uniform(0.01, 2)) if rng.random() < 0.3 else None,
                snapshot=int(rng.integers(0, 3)) if rng.random() < 0.5 else None,
                max_lr=0.05 if rng.random() < 0.2 else None,
            )
            for _ in range(n)
        ]
    )


def follow(policy: Policy, runs: RunColumns, losses: Floats, cuts: list[int]) -> tuple[bytes, States]:
    """Return the learning rates and the last states of all runs, each batch cut up at `cuts`."""
    n = len(runs)
    states, last = policy.init_state(n), np.full(n, np.nan)
    record = []
    edges = [0, *cuts, n]
    for step, row in enumerate(losses):
        moved = states.copy()
        for start, stop in pairwise(edges):
            part = np.arange(start, stop)
            at = np.full(len(part), step)
            lrs, moved[part], _ = advise(policy, states[part], at, row[part], last[part], runs.take(part))
            last[part] = lrs
        states = moved
        record.append(last.copy())
    return np.array(record).tobytes(), states


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
    cut, cut_states = follow(policy, runs.take(order), losses[:, order], sorted(cuts))
    back = np.argsort(order)
    rates = np.frombuffer(cut).reshape(STEPS, n)[:, back]
    assert rates.tobytes() == whole
    assert cut_states[back].tobytes() == states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_alone_equals_in_company(spec: Architecture) -> None:
    """A run advised alone gets the bits that it gets among 299 others, for every one of the 300."""
    rng = np.random.default_rng(11)
    policy, runs = random_model(spec).policy(), mixed_runs(300, rng)
    losses = rng.exponential(2.0, (3, 300))
    whole, states = follow(policy, runs, losses, [])
    alone, alone_states = follow(policy, runs, losses, list(range(1, 300)))
    assert alone == whole
    assert alone_states.tobytes() == states.tobytes()


@pytest.mark.parametrize("spec", SMALL, ids=label)
def test_equal_runs_get_equal_bits(spec: Architecture) -> None:
    """Runs with the same config and losses get the same bits in every row of one batch."""
    policy = random_model(spec).policy()
    runs = RunColumns.of([RunConfig(horizon=9, num_classes=10)] * 157)
    states = policy.init_state(157)
    for step, loss in enumerate(np.random.default_rng(2).exponential(2.0, 9)):
        lrs, states = policy.step(states, np.full(157, step), np.full(157, loss), runs)
        assert len(np.unique(lrs)) == 1
        assert len(np.unique(states, axis=0)) == 1


SCAN = """
import numpy as np
from mlrs_core.architectures.tiles import TILE, product
rng = np.random.default_rng(0)
for hidden in [*range(2, 81), 100, 128, 200, 255, 256, 512, 1024]:
    for inputs, outputs in ((hidden // 2, 4 * hidden), (hidden, hidden // 2)):
        weights = np.ascontiguousarray(rng.normal(size=(outputs, inputs)).astype(np.float32).T)
        rows = rng.normal(size=(4 * TILE, inputs)).astype(np.float32)
        alone = np.zeros((4 * TILE * TILE, inputs), np.float32)
        alone[::TILE] = rows
        order = rng.permutation(4 * TILE)
        assert product(rows[order], weights).tobytes() == product(alone, weights)[::TILE][order].tobytes()
"""


@pytest.mark.parametrize("processor", [None, "SkylakeX", "Haswell", "Sandybridge", "Nehalem", "Prescott"])
def test_products_treat_rows_alike_on_every_processor(processor: str | None) -> None:
    """In a product of a tile, a row's bits depend on no other row and not on its place in the tile.

    For every width of network, with each of the inner kernels that OpenBLAS has for x86.
    """
    if processor == "SkylakeX" and "avx512f" not in cpu_flags():
        pytest.skip("this processor lacks AVX-512")
    choice = {"OPENBLAS_CORETYPE": processor} if processor else {}
    process = subprocess.run(
        [sys.executable, "-c", SCAN],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **choice},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode < 0:
        pytest.skip(f"this processor cannot run the kernel for {processor}")
    assert process.returncode == 0, process.stderr


def cpu_flags() -> str:
    """Return what Linux says this processor can do; elsewhere nothing."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
