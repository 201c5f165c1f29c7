"""Sweeps: many runs as one, on arrays, in both flavours."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

import mlrs
from mlrs.protocol import conversation
from mlrs.wire import calls
from mlrs_proto import v1 as pb
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, lr_sequence

IDS = ["a", "b", "c"]
LOSSES = np.abs(np.random.default_rng(3).normal(1.0, 1.0, (40, 3)))


def expected(losses: Any) -> Any:
    """Return the learning rates of (steps, runs) losses."""
    return np.array([lr_sequence(list(column)) for column in np.transpose(losses)]).T


async def test_arrays_in_arrays_out(either: Any, daemon: FakeDaemon) -> None:
    """Each run gets the learning rates of its own losses, in one message a step."""
    losses = LOSSES[:6].copy()
    losses[2, 1] = np.nan
    sweep = await done(either.sweep(IDS, horizon=10))
    lrs = [await done(sweep.next_lrs(step, row)) for step, row in enumerate(losses)]
    assert np.array(lrs).tolist() == expected(losses).tolist()
    assert (sweep.ids, len(sweep), sweep.created, sweep.next_step) == (tuple(IDS), 3, True, 6)
    assert {run.config.horizon for run in daemon.runs.values()} == {10}


async def test_overlap(either: Any) -> None:
    """Observations are sent at once; their learning rates are taken later, in any order."""
    sweep = await done(either.sweep(IDS))
    pendings = [sweep.observe(step, row) for step, row in enumerate(LOSSES[:5])]
    lrs = [await done(pending.lrs()) for pending in reversed(pendings)]
    assert lrs[::-1] == pytest.approx(expected(LOSSES[:5]))
    assert pendings[0].done()
    again = await done(pendings[0].lrs())
    again[:] = 0.0
    assert (await done(pendings[0].lrs())).min() > 0.0


async def test_configs_of_runs(either: Any, daemon: FakeDaemon) -> None:
    """A value of the config is for all runs, a list or an array holds one a run."""
    rates = np.array([0.1, 0.2, 0.3])
    kinds = ["sgd", "adam", "adamw"]
    await done(either.sweep(IDS, horizon=9, initial_lr=rates, optimizer=kinds, momentum=np.float64(0.5)))
    configs = [daemon.runs[run_id].config for run_id in IDS]
    assert [config.initial_lr for config in configs] == rates.tolist()
    assert [config.optimizer for config in configs] == [
        pb.OPTIMIZER_SGD,
        pb.OPTIMIZER_ADAM,
        pb.OPTIMIZER_ADAMW,
    ]
    assert {(config.horizon, config.momentum) for config in configs} == {(9, 0.5)}


async def test_many_runs_open_in_few_calls(either: Any, daemon: FakeDaemon) -> None:
    """A thousand runs are opened, or finished, in a call; no message is longer than it may be."""
    ids = [f"run-{index}" for index in range(7)]
    with mock.patch.object(calls, "MAX_BATCH", 3), mock.patch.object(conversation, "AT_ONCE", 10):
        sweep = await done(either.sweep(ids))
        assert daemon.batches == [3, 3, 1]
        losses = np.arange(21.0).reshape(3, 7)
        pendings = [sweep.observe(step, row) for step, row in enumerate(losses)]
        assert [await done(pending.lrs()) for pending in pendings] == pytest.approx(expected(losses))
        finished = await done(sweep.finish())
    assert [run.id for run in finished] == ids
    assert all(run.finished for run in daemon.runs.values())


@pytest.mark.parametrize("event", ["cut", "drain", "lose", "restart"])
async def test_broken_streams(either: Any, daemon: FakeDaemon, event: str) -> None:
    """Whatever ends a stream, the sweep continues, and no learning rate changes."""
    sweep = await done(either.sweep(IDS))
    lrs = [await done(sweep.next_lrs(step, row)) for step, row in enumerate(LOSSES[:5])]
    for record in daemon.runs.values():
        record.durable_step = {"a": 1, "b": 3, "c": -1}[record.run_id]
    await asyncio.to_thread(getattr(daemon, event))
    lrs += [await done(sweep.next_lrs(step, row)) for step, row in enumerate(LOSSES[5:12], 5)]
    assert np.array(lrs).tolist() == expected(LOSSES[:12]).tolist()


async def test_a_long_way_back_is_gone_in_parts(either: Any, daemon: FakeDaemon) -> None:
    """A sweep that cannot join again within one deadline continues where it was with the next."""
    ids = [f"run-{index}" for index in range(8)]
    with mock.patch.object(calls, "MAX_BATCH", 2):
        sweep = await done(either.sweep(ids, fallback=None))
        lrs = [await done(sweep.next_lrs(0, np.ones(8)))]
        await asyncio.to_thread(daemon.restart)
        daemon.batches.clear()
        daemon.open_s = 0.2
        late = 0
        while len(lrs) == 1:
            try:
                lrs.append(await done(sweep.next_lrs(1, np.ones(8), timeout_s=0.5)))
            except (mlrs.errors.DeadlineExceededError, mlrs.UnavailableError):
                late += 1
        assert late >= 1
        assert len(daemon.batches) <= 4 + late
    assert np.array(lrs).tolist() == expected(np.ones((2, 8))).tolist()


async def test_repeats(either: Any, daemon: FakeDaemon) -> None:
    """A step observed again with its losses is answered again; with others it is refused."""
    sweep = await done(either.sweep(IDS))
    first = await done(sweep.next_lrs(0, LOSSES[0]))
    assert (await done(sweep.next_lrs(0, LOSSES[0]))).tolist() == first.tolist()
    with pytest.raises(mlrs.errors.StaleStepError, match="another loss"):
        sweep.observe(0, LOSSES[1])
    with pytest.raises(mlrs.errors.StepAheadError, match="sweep of 3 runs"):
        sweep.observe(2, LOSSES[2])
    assert daemon.entries == 3


async def test_a_refused_run_is_named(either: Any, daemon: FakeDaemon) -> None:
    """When the daemon refuses one run of a step, the error names it, and the step comes next again."""
    sweep = await done(either.sweep(IDS))
    await done(sweep.next_lrs(0, LOSSES[0]))
    daemon.runs["b"].finished = True
    with pytest.raises(mlrs.errors.RunFinishedError, match="'b'"):
        await done(sweep.next_lrs(1, LOSSES[1]))
    assert sweep.next_step == 1
    daemon.runs["b"].finished = False
    rest = [await done(sweep.next_lrs(step, row)) for step, row in enumerate(LOSSES[1:4], 1)]
    assert np.array(rest).tolist() == expected(LOSSES[:4])[1:].tolist()


async def test_resuming(either: Any, daemon: FakeDaemon) -> None:
    """A sweep continues at the smallest next step of its runs, or at `resume_from`."""
    sweep = await done(either.sweep(IDS))
    for step in range(4):
        await done(sweep.next_lrs(step, LOSSES[step]))
    sweep.detach()
    with pytest.raises(mlrs.errors.ClosedError, match="open it again"):
        sweep.observe(4, LOSSES[4])
    del daemon.runs["b"].losses[2:]
    behind = await done(either.sweep(IDS))
    assert (behind.created, behind.next_step) == (False, 2)
    lrs = [await done(behind.next_lrs(step, LOSSES[step])) for step in range(2, 6)]
    assert np.array(lrs).tolist() == expected(LOSSES[:6])[2:].tolist()
    rewound = await done(either.sweep(IDS, resume_from=1))
    assert rewound.next_step == 1
    assert {len(run.losses) for run in daemon.runs.values()} == {1}


@pytest.mark.parametrize(
    "losses",
    [[1, 2, 3], (1.0, 2.0, 3.0), np.float32([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)],
    ids=["list", "tuple", "array", "tensor"],
)
async def test_what_losses_may_be(either: Any, losses: Any) -> None:
    """Losses come as whatever holds one real number a run."""
    sweep = await done(either.sweep(IDS))
    assert (await done(sweep.next_lrs(0, losses))).tolist() == expected([[1.0, 2.0, 3.0]])[0].tolist()


@pytest.mark.parametrize(
    ("losses", "problem"),
    [
        ([1.0, 2.0], "one number for each of the 3 runs"),
        (1.0, "shape \\(\\)"),
        ([[1.0, 2.0, 3.0]], "shape \\(1, 3\\)"),
        (["1", "2", "3"], "real numbers"),
        ([True, False, True], "real numbers"),
        ([None, 1.0, 2.0], "real numbers"),
        ([1j, 1.0, 2.0], "real numbers"),
        ([[1.0], 2.0, 3.0], "array"),
    ],
)
async def test_bad_losses(either: Any, daemon: FakeDaemon, losses: Any, problem: str) -> None:
    """Losses that are not one real number a run are refused before anything is sent."""
    sweep = await done(either.sweep(IDS))
    with pytest.raises(mlrs.errors.InvalidArgumentError, match=problem) as caught:
        sweep.observe(0, losses)
    assert caught.value.field == "losses"
    assert daemon.entries == 0


@pytest.mark.parametrize(
    ("ids", "config", "field"),
    [
        ([], {}, "ids"),
        ("abc", {}, "ids"),
        (["a", "a"], {}, "ids"),
        (["a", "!"], {}, "id"),
        (IDS, {"horizon": [1, 2]}, "horizon"),
        (IDS, {"horizon": [1, 2, -1]}, "horizon"),
        (IDS, {"optimizer": "sgdd"}, "optimizer"),
        (IDS, {"on_existing": "restart", "resume_from": 1}, "resume_from"),
    ],
)
async def test_bad_arguments(either: Any, daemon: FakeDaemon, ids: Any, config: Any, field: str) -> None:
    """A sweep is not opened with arguments that are wrong; the error names the one."""
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        await done(either.sweep(ids, **config))
    assert caught.value.field == field
    assert not daemon.runs


def test_without_numpy(advisor: mlrs.Advisor) -> None:
    """Without NumPy a sweep cannot be opened, and the error says what to install."""
    with mock.patch.dict(sys.modules, {"numpy": None}):  # which puts back what is popped, too
        for name in ("ledger.sweep_entries", "api.sweep"):
            sys.modules.pop(f"mlrs.{name}", None)
        with pytest.raises(mlrs.errors.UsageError, match="pip install numpy"):
            advisor.sweep(IDS)
