"""Live runs in arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import MetaConfig, RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.policy import Floats, Policy
from mlrs_server.domain.handles import make_handle, row_of
from mlrs_server.domain.ledger import DIVERGED_AFTER, AdviceReason, RunStatus, common_group
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.replay import Replay
from tests.core.networks.families import random_model
from tests.server.support import LOSSES, observed
from tests.support.daemon import write_random_model

MANY = st.lists(st.floats(width=64), max_size=30)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A small network, ready to compute."""
    return read_model(write_random_model(tmp_path_factory.mktemp("model") / "m.safetensors"))[0].policy()


def add(group: RunGroup, name: str, config: RunConfig | None = None) -> int:
    """Take a new run in."""
    row = group.reserve()
    group.put(row, name, 1, config or RunConfig(), first_snapshot(group.policy))
    return row


def answered(group: RunGroup, handles: Any, steps: Any, losses: Any) -> Floats:
    """Return the learning rates that some observations get."""
    some = observed(handles, steps, losses)
    group.answer(some)
    return some.lrs


def advance(group: RunGroup, row: int, losses: Floats) -> Floats:
    """Advance one run by some losses; return the learning rates."""
    start = int(group.records["next_step"][row])
    steps = np.arange(start, start + len(losses))
    return answered(group, np.full(len(losses), group.records["handle"][row]), steps, losses)


def test_growth_keeps_rows(policy: Policy) -> None:
    """Runs are as they were, bit for bit, after the arrays have grown under them."""
    group = RunGroup(3, "", policy)
    configs = [RunConfig(horizon=10 + index, scale=0.1 + index, max_lr=1.0 + index) for index in range(40)]
    rows, before = [], []
    for index, config in enumerate(configs):
        rows.append(add(group, f"run {index}", config))
        advance(group, rows[-1], LOSSES[: index % 4])
        before.append((group.snapshot(rows[-1]).state.tobytes(), int(group.records["handle"][rows[-1]])))
    assert len(set(rows)) == len(rows)
    for index, (row, config) in enumerate(zip(rows, configs, strict=True)):
        assert group.run_ids[row] == f"run {index}"
        assert group.snapshot(row).next_step == index % 4
        assert (group.snapshot(row).state.tobytes(), int(group.records["handle"][row])) == before[index]
        assert group.table["horizon"][row] == config.horizon
        assert group.table["scale"][row] == config.scale
        assert group.table["max_lr"][row] == config.max_lr


def test_growth_and_shrinking_keep_networks() -> None:
    """Networks that runs have of their own stay with their rows, bit for bit, as the arrays change size."""
    learning = random_model(DriftSpec(hidden_size=2)).adaptive_policy(MetaConfig())
    group = RunGroup(3, "", learning)
    rows = [add(group, f"run {index}") for index in range(5)]
    group.networks[rows[1]], group.networks[rows[4]] = learning.first_network(), 2.0
    before = group.networks[:5].tobytes()
    more = [add(group, f"more {index}") for index in range(60)]
    assert (len(group.networks), group.networks[:5].tobytes()) == (len(group.states), before)
    assert not group.networks[5:].any()
    for row in more:
        group.close(row)
        group.free(row)
    group.shrink()
    assert len(group.networks) == len(group.states) < 64
    assert group.networks[:5].tobytes() == before


def test_a_freed_row_is_used_again_under_another_handle(policy: Policy) -> None:
    """A row's next run shares nothing with the one before, its handle included."""
    group = RunGroup(0, "", policy)
    row = add(group, "old", RunConfig(horizon=7, scale=3.0))
    advance(group, row, LOSSES[:5])
    handle = group.close(row)
    assert group.records["handle"][row] == 0
    group.free(row)
    assert add(group, "new") == row
    assert group.records["handle"][row] not in (0, handle)
    fresh = RunGroup(0, "", policy)
    other = add(fresh, "new")
    assert advance(group, row, LOSSES[:9]).tobytes() == advance(fresh, other, LOSSES[:9]).tobytes()


def test_a_reopened_row_has_its_handle_back(policy: Policy) -> None:
    """What was closed for a moment is known by the same handle after."""
    group = RunGroup(0, "", policy)
    row = add(group, "a")
    handle = int(group.records["handle"][row])
    assert group.close(row) == handle
    group.reopen(row, handle)
    assert group.records["handle"][row] == handle


@given(st.integers(0, 2**12 - 1), st.integers(0, 2**20 - 1))
def test_handles_name_group_and_row(group: int, row: int) -> None:
    """A handle is split into what it was made of, and is never 0."""
    handle = make_handle(group, row)
    assert 0 < handle < 2**64
    assert common_group(observed([handle, handle], 0, 0).table) == group
    assert row_of(handle) == row


def test_handles_of_two_groups_have_none_in_common() -> None:
    """A message over several groups is told from one of a single group."""
    handles = [make_handle(group, 1) for group in (0, 2**12 - 1, 0)]
    assert common_group(observed(handles, 0, 0).table) == -1


def test_a_run_diverges_and_comes_back(policy: Policy) -> None:
    """Ten losses in a row that are not finite make a run diverged; a finite one makes it active."""
    group = RunGroup(0, "", policy)
    row = add(group, "a")
    advance(group, row, np.array([2.0]))
    held = float(group.records["last_lr"][row])
    for count in range(1, DIVERGED_AFTER + 3):
        lrs = advance(group, row, np.array([(math.nan, math.inf, -math.inf)[count % 3]]))
        assert lrs.tolist() == [held]
        assert group.records["last_reason"][row] == AdviceReason.HELD
        expected = RunStatus.DIVERGED if count >= DIVERGED_AFTER else RunStatus.ACTIVE
        assert group.snapshot(row).status == expected
        assert group.snapshot(row).bad_losses == count
    advance(group, row, np.array([2.0]))
    assert group.snapshot(row).status == RunStatus.ACTIVE
    assert group.snapshot(row).bad_losses == 0
    assert group.records["last_reason"][row] == AdviceReason.FRESH


@given(MANY, MANY, st.none() | st.integers(1, 40))
def test_a_replay_is_the_run(policy: Policy, first: list[float], then: list[float], horizon: int) -> None:
    """A run recomputed from its losses, in any pieces, has the bits of the live one among others."""
    config = RunConfig(horizon=horizon, num_classes=10)
    group = RunGroup(5, "", policy)
    rows = [add(group, name, config) for name in "abc"]
    handles = group.records["handle"][rows]
    losses = np.array(first + then)
    live = np.array(
        [answered(group, handles, np.full(3, step), [1.0, loss, 2.0])[1] for step, loss in enumerate(losses)]
    )
    replay = Replay(policy, config)
    lrs = np.concatenate([replay.feed(np.array(first)), replay.feed(np.array(then))])
    assert lrs.tobytes() == live.tobytes()
    left, right = replay.snapshot(), group.snapshot(int(rows[1]))
    assert left.state.tobytes() == right.state.tobytes()
    assert (left.status, left.next_step, left.bad_losses) == (right.status, right.next_step, right.bad_losses)
