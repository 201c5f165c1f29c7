"""Machine code that is there before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

CHECK = """
import numpy as np
from mlrs_core import advise
from mlrs_core.adapting import adam, guard_rails
from mlrs_core.networks.drift import kernel as drift, learner as drift_learner
from mlrs_core.networks.paper import kernel as paper, learner as paper_learner
from mlrs_core.config import RunConfig
from mlrs_core.policy import table_of
from mlrs_core.rescue import RescuingPolicy, policy as rescue
from mlrs_core.schedules import base
from mlrs_server.domain import gradients, ledger, observations, run_snapshot
from mlrs_server.domain.gradients import ElementType, Piece, RunningDot
from mlrs_server.domain.extras import WIDTH
from mlrs_server.live import arrays
from mlrs_server.live.flush_batch import FlushBatch
from mlrs_server.live.replay import Replay
from mlrs_server.storage import Observations, chunks
from mlrs_server.domain.observations import Entries
from mlrs_core.networks import ARCHITECTURES
from mlrs_core.config import ScheduleKind, ScheduleSpec
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.live.warmup import adaptive_policy, all_parts, frozen_policy, warm_up

functions = [ledger.common_group, ledger.admit, ledger.settle]
functions += [observations.count_rows, observations.sort_by_row, observations.find_answers]
functions += [chunks._lay_out, chunks._pick]
functions += [drift._advance, paper._advance, base._default_lrs, rescue._watch]
functions += [each._advance_background for each in (drift, paper, drift_learner, paper_learner)]
learning = [guard_rails.begin_trial, guard_rails.clipped, adam.direction, adam.put]
learning += [getattr(drift_learner, name) for name in ("_advance", "_find", "_slope", "_levels", "_again")]
learning += [getattr(paper_learner, name) for name in ("_advance", "_step", "_slope", "_levels")]
functions += learning
assert not any(function.signatures for function in functions)
warm_up(all_parts())
made = [list(function.signatures) for function in functions]
assert all(len(signatures) == 1 for signatures in made), made
dots = list(gradients._dot.signatures)
policies = [*map(frozen_policy, ARCHITECTURES), schedule_policy(ScheduleSpec(ScheduleKind.CONSTANT))]
for policy in [*policies, *map(RescuingPolicy, policies)]:
    group = arrays.RunGroup(3, "", policy)
    rows = [group.reserve() for _ in range(20)]
    for row in rows:
        snapshot = run_snapshot.first_snapshot(policy)
        group.put(row, str(row), row, RunConfig(horizon=9, num_classes=10), snapshot)
    handles = group.records["handle"][rows]
    message = Entries.of(handles, np.zeros(20, np.int64), np.linspace(0, 2, 20))
    ledger.common_group(message.table)
    done = group.answer(message)
    assert done.fresh == done.plain == 20
    losses = np.array([0.0, np.nan, 1.0, 1.0, 1.0])
    group.answer(Entries.of(handles[:5], np.array([0, 1, 1, 2, 7]), losses))
    group.answer(Entries.of_one(int(handles[6]), 1, 0.5))
    group.answer(Entries.of_one(int(handles[7]), 1, 0.5, extras=np.ones((1, WIDTH))))
    several = Entries.of(handles[8:10], np.array([1, 1]), losses[:2])
    several.extras = np.ones((2, WIDTH))
    group.answer(several)
    updates = FlushBatch.of(group).updates()
    answers = updates.answers
    record = Observations(answers["loss"], answers["lr"], answers["reason"], extras=updates.extras)
    assert len(record.extras) == 3
    packed = chunks.pack_chunks(record, updates.bounds)
    rows, steps, numbers, positions = np.array([[1, 1], [0, 1], [0, 0], [0, 0]])
    observations.find_answers(group.log.unstored()[0], rows, steps, numbers, positions)
    assert group.log.unstored()[0]["step"][positions].tolist() == [0, 1]
    assert chunks.unpack_steps([(0, 0, packed[0])], steps[:1], steps[:1]).reasons.tolist() == [1]
for policy in (*policies, *map(adaptive_policy, ARCHITECTURES)):
    Replay(policy, RunConfig(horizon=9)).feed(np.linspace(0, 2, 20))
for policy in map(adaptive_policy, ARCHITECTURES):
    group = arrays.RunGroup(4, "", policy)
    row = group.reserve()
    group.put(row, "a", 0, RunConfig(num_classes=10), run_snapshot.first_snapshot(policy))
    for step in range(30):
        group.answer(Entries.of_one(int(group.records["handle"][row]), step, 0.5))
        policy.adapt(group.states, group.networks, group.table, row, step, 0.1)
    assert group.networks.any()
for kind in ElementType:
    RunningDot().add(Piece(kind, bytes(4096), bytes(4096)))
assert dots and gradients._dot.signatures == dots
assert [list(function.signatures) for function in functions] == made
"""


def test_nothing_is_compiled_for_a_run() -> None:
    """After the warm-up, no kind of message compiles anything."""
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)  # all kernels are compiled, some twice
def test_a_daemon_starts_on_a_damaged_kernel_cache(tmp_path: Path) -> None:
    """With empty and random files in the kernel cache, a daemon compiles again, warns once, and starts."""
    cache = tmp_path / "cache"
    daemon = Daemon(tmp_path / "d", "--log-format", "json", environment={"NUMBA_CACHE_DIR": str(cache)})
    with daemon:
        assert daemon.stop() == 0
        assert "kernel_cache_unusable" not in daemon.log.read_text(encoding="utf-8")
        indices, code = sorted(cache.rglob("*.nbi")), sorted(cache.rglob("*.nbc"))
        indices[0].write_bytes(b"")
        indices[5].write_bytes(b"\xa5" * 500)
        code[-1].write_bytes(b"")
        code[-5].write_bytes(b"\xa5" * 500)
        daemon.start()
        assert daemon.stop() == 0
    events = [json.loads(line) for line in daemon.log.read_text(encoding="utf-8").splitlines()]
    warnings = [event for event in events if event["level"] == "warning"]
    assert [event["event"] for event in warnings] == ["kernel_cache_unusable"]
    assert str(cache) in warnings[0]["problem"]
