"""Schedules from a real daemon: through a kill, from PyTorch, by asyncio, and in a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import mlrs
import mlrs.aio
from mlrs import Schedule, schedules
from mlrs.torch import AdvisedLR
from mlrs.types import ScheduleKind
from mlrs_cli.root import command
from tests.support.daemon import Daemon
from tests.support.runs import open_run, opened

STEPS = 120


def _loss(step: int) -> float:
    return 2.5 / (1 + 0.05 * step) + 0.3 * ((step * 7919) % 13) / 13


def test_a_killed_daemon_changes_no_lr_of_any_schedule(tmp_path: Path) -> None:
    """Runs of every kind whose daemon is killed with -9 in the middle get the LRs of undisturbed runs."""
    with Daemon(tmp_path / "data") as daemon, mlrs.connect(daemon.address, timeout_s=20) as advisor:

        def follow(name: str, kills: set[int]) -> list[list[float]]:
            runs = [
                open_run(advisor, f"{name}-{kind}", policy=_eager(kind), base_lr=0.1, warmup=9, horizon=STEPS)
                for kind in ScheduleKind
            ]
            lrs = []
            for step in range(STEPS):
                if step in kills:
                    daemon.kill()
                    daemon.start()
                pending = [run.observe(step, _loss(step)) for run in runs]
                lrs.append([each.lr() for each in pending])
            return lrs

        expected = follow("undisturbed", set())
        assert follow("survivor", {1, 57, 58, 90}) == expected
        plateau, greedy = ([row[at] for row in expected[9:]] for at in (-2, -1))
    assert plateau[-1] < plateau[0]
    assert len(set(greedy)) > 2


def _eager(kind: ScheduleKind) -> Schedule:
    """Return a schedule of a kind, with little patience if it has any."""
    return Schedule(kind, patience=3) if kind in ("plateau", "greedy") else Schedule(kind)


def test_pytorch_follows_a_schedule_of_the_daemon(tmp_path: Path) -> None:
    """An AdvisedLR over a run with a policy gives PyTorch's cosine, from the default LR of its optimizer."""
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    mine = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)
    theirs = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 50)
    with Daemon(tmp_path / "data") as daemon, mlrs.connect(daemon.address, timeout_s=20) as advisor:
        scheduler = AdvisedLR(mine, open_run(advisor, "torch", policy="cosine", horizon=50))
        for step in range(50):
            scheduler.observe(_loss(step))
            mine.step()
            assert mine.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
            theirs.step()
            scheduler.step()
            expected.step()


async def test_asyncio_follows_a_schedule_of_the_daemon(tmp_path: Path) -> None:
    """A run of the asyncio client takes the same arguments and gets the closed form's LRs."""
    with Daemon(tmp_path / "data") as daemon:
        async with mlrs.aio.connect(daemon.address, timeout_s=20) as advisor:
            run = await opened(advisor, "aio", policy="wsd", base_lr=0.3, warmup=4, horizon=40)
            lrs = [await run.next_lr(step, 1.0) for step in range(45)]
            run.detach()
    expected = [schedules.wsd(step, base_lr=0.3, warmup=4, horizon=40) for step in range(45)]
    assert lrs == pytest.approx(expected, rel=1e-12)


def test_commands_show_the_schedule(tmp_path: Path) -> None:
    """`mlrs runs list` names a run's schedule, and `show` gives its numbers."""
    with Daemon(tmp_path / "data") as daemon:
        with mlrs.connect(daemon.address, timeout_s=20) as advisor:
            open_run(advisor, "stepped", policy=Schedule("multi-step", base_lr=0.1, milestones=[30, 60]))
            with pytest.raises(mlrs.errors.InvalidArgumentError, match="total number of steps") as caught:
                open_run(advisor, "endless", policy="cosine")
        assert caught.value.field == "config.horizon"
        arguments = ["--address", daemon.address]
        runner = CliRunner(env={"COLUMNS": "200"})
        listed = runner.invoke(command, ["runs", "list", *arguments]).output
        shown = json.loads(runner.invoke(command, ["runs", "show", "stepped", *arguments]).output)
    assert "multi-step" in listed
    assert shown["config"]["schedule"] == {
        "kind": "multi-step",
        "base_lr": 0.1,
        "warmup": 0,
        "milestones": [30, 60],
        "factor": 0.1,
    }
    assert "model" not in shown["config"]
