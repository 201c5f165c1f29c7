"""The transfer rule: which snapshot advises which step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import MAX_HORIZON, RunConfig
from mlrs_core.networks.snapshots import snapshot_at
from tests.core.networks.families import FAMILIES, random_model
from tests.core.runs import Runs


def choose(steps: list[int], horizon: int = -1, named: int = -1, count: int = 3) -> list[int]:
    """Return the snapshot at each of some steps of one run."""
    return [snapshot_at(step, horizon, named, count) for step in steps]


@given(step=st.integers(0, 2**62), horizon=st.integers(1, MAX_HORIZON))
def test_three_snapshots_follow_the_published_rule(step: int, horizon: int) -> None:
    """Snapshot 0 while step < horizon // 3, 1 while step < 2 * (horizon // 3), then 2."""
    third = horizon // 3
    assert choose([step], horizon) == [0 if step < third else 1 if step < 2 * third else 2]


@pytest.mark.parametrize(
    ("horizon", "chosen"),
    [
        (1, [2, 2, 2, 2, 2, 2]),
        (2, [2, 2, 2, 2, 2, 2]),
        (3, [0, 1, 2, 2, 2, 2]),
        (4, [0, 1, 2, 2, 2, 2]),
        (5, [0, 1, 2, 2, 2, 2]),
        (6, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_short_horizons(horizon: int, chosen: list[int]) -> None:
    """A horizon of fewer steps than snapshots has the last one only; thirds are rounded down."""
    assert choose(list(range(6)), horizon) == chosen


def test_beyond_the_horizon_the_last_snapshot_stays() -> None:
    """A run that outlives its horizon stays on the last snapshot."""
    assert choose([9, 10, 11, 10**6, 2**62], horizon=10) == [2] * 5


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_without_horizon_the_middle_snapshot_stays(count: int, middle: int) -> None:
    """A run without a horizon that names no snapshot stays on the middle one."""
    assert choose([0, 5, 10**9], count=count) == [middle] * 3


@pytest.mark.parametrize("named", [0, 1, 2])
def test_without_horizon_the_named_snapshot_stays(named: int) -> None:
    """A run without a horizon stays on the snapshot it names."""
    assert choose([0, 5, 10**9], named=named) == [named] * 3


def test_horizon_goes_before_name() -> None:
    """A named snapshot says nothing once there is a horizon."""
    assert choose([0, 1, 2], horizon=3, named=2) == [0, 1, 2]


@given(
    step=st.integers(0, 2**62),
    horizon=st.integers(-1, MAX_HORIZON).filter(bool),
    named=st.integers(-1, 2**31 - 1),
    count=st.integers(1, 64),
)
def test_choice_is_a_snapshot_of_the_model(step: int, horizon: int, named: int, count: int) -> None:
    """Whatever is asked, the choice is one of the model's snapshots."""
    assert 0 <= choose([step], horizon, named, count)[0] < count


@given(horizon=st.integers(1, 300), count=st.integers(1, 9))
def test_snapshots_come_in_order(horizon: int, count: int) -> None:
    """Along a run the snapshots come in order, each once, from the first if the horizon is long enough."""
    chosen = choose(list(range(horizon)), horizon, count=count)
    assert chosen == sorted(chosen)
    assert set(chosen) == (set(range(count)) if horizon >= count else {count - 1})


@pytest.mark.parametrize("spec", FAMILIES["paper"].small, ids=lambda spec: spec.kind + str(spec.hidden_size))
def test_each_step_is_advised_by_its_snapshot(spec: object) -> None:
    """A run with a horizon equals one stitched together from runs on each snapshot, state carried."""
    policy = random_model(spec).policy()  # type: ignore[arg-type]
    whole = Runs(policy, [RunConfig(scale=1.0, horizon=9)])
    stitched = Runs(policy, [RunConfig(scale=1.0)])
    for step, loss in enumerate(np.random.default_rng(5).exponential(2.0, 10)):
        stitched.table["snapshot"] = min(step // 3, 2)
        assert whole.advise(step, [loss]).tobytes() == stitched.advise(step, [loss]).tobytes()
