"""The memory of a task with a real daemon: a second run goes on from what the first has shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import mlrs
from mlrs.torch import AdvisedLR
from mlrs.types import Ending, Measure
from tests.client.api.test_searching import Loop
from tests.client.api.test_unsent import files
from tests.support.daemon import Daemon

STEPS = 200


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with its own models."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as running:
        yield running


@pytest.fixture
def advisor(daemon: Daemon, tmp_path: Path) -> Iterator[mlrs.Advisor]:
    """An advisor of it."""
    with mlrs.connect(daemon.address, timeout_s=20.0, unsent_dir=tmp_path) as advisor:
        yield advisor


def trained(advisor: mlrs.Advisor, task: str, metric: float | None = None, **options: Any) -> mlrs.Run:
    """Make a run of a task, with a search if it makes one, and finish it."""
    run = advisor.run(task, horizon=STEPS, optimizer="adam", batch_size=8, **options)
    run.search(Loop())
    weight = 5.0
    for step in range(STEPS):
        weight *= 1.0 - 3.0 * run.next_lr(step, 1.5 * weight**2 + 0.1)
    run.finish(metric=metric, higher_is_better=True)
    return run


def test_a_second_run_needs_no_search(advisor: mlrs.Advisor) -> None:
    """The first run of a task searches; the second one is told what to begin with, and why."""
    first = trained(advisor, "second", 0.5)
    assert first.config.found is not None
    assert first.config.recalled is not None
    assert not first.config.recalled.decided
    second = advisor.run("second", horizon=STEPS, optimizer="adam", batch_size=8)
    result = second.search(Loop())
    assert result.learning_rate is None
    assert second.why in result.why_not
    assert second.config.schedule is not None
    assert second.config.batch_size == 8
    memory = advisor.task("second")
    assert memory.measure == Measure.METRIC
    assert [run.metric for run in memory.runs if run.ending == Ending.REACHED] == [0.5]
    assert memory.next is not None


def test_the_run_that_counts_gets_the_best_known(advisor: mlrs.Advisor) -> None:
    """With `explore=False` a run begins where the best run began."""
    first = trained(advisor, "best", 0.5)
    assert first.config.found is not None
    last = advisor.run("best", horizon=STEPS, optimizer="adam", batch_size=8, explore=False).open()
    assert last.config.schedule is not None
    assert last.config.schedule.base_lr == pytest.approx(first.config.found.learning_rate)


def test_a_run_without_memory_is_not_remembered(advisor: mlrs.Advisor) -> None:
    """With `memory=False`, or a learning rate that is given, a run tells nothing and is told nothing."""
    trained(advisor, "none", memory=False)
    run = advisor.run("none", horizon=STEPS, initial_lr=0.1).open()
    assert run.config.recalled is None
    assert "none" not in [task.name for task in advisor.tasks()]
    with pytest.raises(mlrs.errors.TaskNotFoundError):
        advisor.task("none")


def test_an_optimizer_that_an_adapter_reads(advisor: mlrs.Advisor) -> None:
    """An adapter that is made after the run was opened tells the optimizer, and the memory decides then."""
    trained(advisor, "adapter", 0.5)
    run = advisor.run("adapter", horizon=STEPS, batch_size=8).open()
    model = torch.nn.Linear(1, 1)
    AdvisedLR(torch.optim.Adam(model.parameters()), run)
    assert run.config.recalled is not None
    assert run.config.recalled.decided
    run.detach()


def test_a_sweep_of_a_task_is_remembered(advisor: mlrs.Advisor) -> None:
    """The runs of a sweep are of one task, each with its own metric."""
    ids = [f"sweep/{index}" for index in range(3)]
    sweep = advisor.sweep(ids, task="sweep", horizon=STEPS, optimizer="adam")
    for step in range(3):
        sweep.next_lrs(step, [1.0, 2.0, 3.0])
    sweep.finish(metrics=[0.5, float("nan"), 0.25])
    remembered = {run.id: run for run in advisor.task("sweep").runs}
    assert {run_id: remembered[run_id].metric for run_id in ids} == dict(
        zip(ids, (0.5, None, 0.25), strict=True)
    )
    assert {remembered[run_id].ending for run_id in ids} == {Ending.STOPPED}


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_a_sweep_of_one_run_may_lack_its_metric(advisor: mlrs.Advisor, metric: float) -> None:
    """The only run of a sweep is finished like those of larger ones where its metric is no finite number."""
    sweep = advisor.sweep([f"lone-{metric}"], task=f"lone-{metric}", horizon=STEPS, optimizer="adam")
    sweep.next_lrs(0, [1.0])
    sweep.finish(metrics=[metric])
    (remembered,) = advisor.task(f"lone-{metric}").runs
    assert (remembered.metric, remembered.ending) == (None, Ending.STOPPED)


def test_the_end_reaches_a_daemon_that_was_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A metric that no daemon could be told is in the file, and a push tells it."""
    caplog.set_level(logging.ERROR)
    with Daemon(tmp_path / "data") as daemon:
        with mlrs.connect(daemon.address, timeout_s=1.0, unsent_dir=tmp_path / "unsent") as advisor:
            run = advisor.run("away", id="away", horizon=STEPS, optimizer="adam", timeout_s=20.0)
            run.next_lr(0, 1.0, timeout_s=20.0)
            daemon.kill()
            assert run.finish(metric=0.5) is None
        daemon.start()
        (path,) = files(tmp_path / "unsent")
        with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
            advisor.push(path)
            (remembered,) = advisor.task("away").runs
        assert (remembered.id, remembered.metric) == ("away", 0.5)
