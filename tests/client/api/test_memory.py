"""The memory of a task as trainings see it: what is asked, what is announced, what is told at the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlrs.errors import ConfigMismatchError, InvalidArgumentError, TaskNotFoundError
from mlrs.types import Measure, Recalled
from mlrs_proto import v1 as pb
from tests.client.api.test_searching import Loop
from tests.client.api.test_unsent import files, pushed
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon

WHY = "the best of 3 runs"


async def opened(advisor: Any, task: str = "task", **options: Any) -> Any:
    """Return an open run of a task."""
    run = await done(advisor.run(task, **options))
    return await done(run.open())


# ---------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, pb.EXPLORE_CAREFUL),
        ({"explore": "careful"}, pb.EXPLORE_CAREFUL),
        ({"explore": "full"}, pb.EXPLORE_FULL),
        ({"explore": False}, pb.EXPLORE_NONE),
        ({"memory": False}, pb.EXPLORE_UNSPECIFIED),
        ({"memory": False, "explore": "full"}, pb.EXPLORE_UNSPECIFIED),
        ({"id": "a", "on_existing": "restart"}, pb.EXPLORE_CAREFUL),
        ({"id": "a", "on_existing": "resume"}, pb.EXPLORE_CAREFUL),
        ({"id": "a", "rank": 0}, pb.EXPLORE_CAREFUL),
    ],
    ids=str,
)
async def test_new_runs_ask_the_memory(either: Any, daemon: FakeDaemon, options: Any, asked: Any) -> None:
    """A run that may be new says what it takes from the memory of its task."""
    run = await opened(either, **options)
    assert daemon.memory.explored[run.id] == [asked]


@pytest.mark.parametrize(
    "stated",
    [
        {"initial_lr": 0.1},
        {"policy": "cosine"},
        {"model": "fake"},
        {"meta": True},
        {"lr_offset": 1.0},
        {"scale": 2.0},
        {"snapshot": 1},
    ],
    ids=str,
)
async def test_stated_options_leave_the_memory_out(
    either: Any, daemon: FakeDaemon, stated: dict[str, Any]
) -> None:
    """A run that is given what the memory would decide does not ask it."""
    run = await opened(either, **stated)
    assert daemon.memory.explored[run.id] == [pb.EXPLORE_UNSPECIFIED]


async def test_going_back_to_a_step_asks_nothing(either: Any, daemon: FakeDaemon) -> None:
    """A run that exists is not decided on again, whether it goes back or joins again after a failure."""
    run = await opened(either, id="a")
    for step in range(3):
        await done(run.next_lr(step, 1.0))
    daemon.runs["a"].durable_step = 2
    daemon.lose()
    await done(run.next_lr(3, 1.0))
    await opened(either, id="a", resume_from=2)
    assert daemon.memory.explored["a"] == [pb.EXPLORE_CAREFUL, *[pb.EXPLORE_UNSPECIFIED] * 2]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"explore": True}, "explore"),
        ({"explore": "none"}, "explore"),
        ({"explore": None}, "explore"),
        ({"memory": 1}, "memory"),
        ({"memory": None}, "memory"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2**53 + 1}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
    ],
    ids=str,
)
async def test_wrong_options(either: Any, options: dict[str, Any], field: str) -> None:
    """A wrong option is named before anything is sent."""
    with pytest.raises(InvalidArgumentError, match=field) as caught:
        await done(either.run("task", **options))
    assert caught.value.field == field


async def test_the_batch_size_is_part_of_the_config(either: Any, daemon: FakeDaemon) -> None:
    """The batch size is sent with the config, and another one is refused, as of any option."""
    run = await opened(either, id="a", batch_size=2**53)
    assert run.config.batch_size == daemon.runs["a"].config.batch_size == 2**53
    with pytest.raises(ConfigMismatchError):
        await opened(either, id="a", batch_size=8, on_existing="resume")


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, [0, 0]),
        ({"memory": True}, [pb.EXPLORE_CAREFUL] * 2),
        ({"task": "task"}, [pb.EXPLORE_CAREFUL] * 2),
        ({"task": "task", "explore": "full"}, [pb.EXPLORE_FULL] * 2),
        ({"task": "task", "memory": False}, [0, 0]),
        ({"task": "task", "lr_offset": [1.0, 0.0]}, [0, 0]),
    ],
    ids=str,
)
async def test_sweeps_of_a_task_ask_the_memory(
    either: Any, daemon: FakeDaemon, options: dict[str, Any], asked: list[int]
) -> None:
    """The runs of a sweep are of its task if it has one, and then take part in the memory by default."""
    await done(either.sweep(["a", "b"], batch_size=[4, 8], **options))
    assert [daemon.memory.explored[run_id][0] for run_id in ("a", "b")] == asked
    assert [daemon.runs[run_id].task for run_id in ("a", "b")] == [options.get("task", "")] * 2
    assert [daemon.runs[run_id].config.batch_size for run_id in ("a", "b")] == [4, 8]


async def test_a_wrong_task_of_a_sweep(either: Any) -> None:
    """The name of a sweep's task is checked like that of a run."""
    for task in ("", "no spaces", "x" * 201):
        with pytest.raises(InvalidArgumentError) as caught:
            await done(either.sweep(["a", "b"], task=task))
        assert caught.value.field == "task"


# -------------------------------------------------------------------------- what was decided


async def test_why_a_run_begins_as_it_does(
    either: Any, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the memory decided is printed once, after the run's name, and `why` and `config` have it."""
    monkeypatch.setenv("MLRS_QUIET", "0")
    daemon.memory.decide("task", why=WHY)
    run = await opened(either)
    await done(run.next_lr(0, 1.0))
    assert run.why == WHY
    assert run.config.recalled == Recalled(why=WHY, decided=True)
    assert run.config.schedule.base_lr == 0.25
    name, why = capfd.readouterr().err.splitlines()
    assert run.id in name
    assert why == f"mlrs: run {run.id}: {WHY}"
    again = await opened(either, id=run.id, on_existing="resume")
    assert again.why == WHY
    await done(again.next_lr(1, 1.0))
    assert not capfd.readouterr().err


async def test_nothing_is_printed_where_that_is_not_wanted(
    either: Any, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MLRS_QUIET=1` silences it, and a run without memory has nothing to print."""
    monkeypatch.setenv("MLRS_QUIET", "1")
    daemon.memory.decide("task")
    await opened(either)
    monkeypatch.setenv("MLRS_QUIET", "0")
    run = await opened(either, id="a", memory=False)
    assert "no part in the memory" in run.why
    await done(run.next_lr(0, 1.0))
    assert not capfd.readouterr().err


async def test_an_optimizer_that_an_adapter_reads_later(
    either: Any, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the optimizer becomes known after opening, the memory decides then, and says so."""
    monkeypatch.setenv("MLRS_QUIET", "0")
    daemon.memory.decide("task", why=WHY)
    daemon.memory.wants_optimizer = True
    run = await opened(either, id="a")
    await done(run.describe(optimizer="adam"))
    assert run.why == WHY
    assert daemon.memory.explored["a"] == [pb.EXPLORE_CAREFUL] * 2
    await done(run.next_lr(0, 1.0))  # after which all is printed
    first, second = capfd.readouterr().err.splitlines()
    assert "not known" in first
    assert WHY in second


async def test_an_optimizer_that_completes_a_run_at_opening(either: Any, daemon: FakeDaemon) -> None:
    """A run that may exist is completed after it was opened; it still counts as created by that."""
    daemon.memory.decide("task", why=WHY)
    daemon.memory.wants_optimizer = True
    run = await done(either.run("task", id="a", on_existing="resume"))
    await done(run.describe(optimizer="adam"))
    await done(run.open())
    assert run.created
    assert run.why == WHY
    assert daemon.memory.explored["a"] == [pb.EXPLORE_CAREFUL] * 2


async def test_an_optimizer_that_is_read_after_the_first_step(either: Any, daemon: FakeDaemon) -> None:
    """A run that has begun is completed without asking the memory."""
    run = await opened(either, id="a", optimizer="adam")
    await done(run.next_lr(0, 1.0))
    await done(run.describe(optimizer="adam", momentum=0.9))
    assert set(daemon.memory.explored["a"][1:]) <= {pb.EXPLORE_UNSPECIFIED}


async def test_the_fallback_begins_where_the_memory_says(connect: Any, daemon: FakeDaemon) -> None:
    """A daemon that goes away before the first step leaves the learning rate that it decided."""
    daemon.memory.decide("task", base_lr=0.25)
    advisor = connect(daemon.target, timeout_s=0.5, unsent_dir="")
    run = await opened(advisor)
    daemon.stop()
    assert await done(run.next_lr(0, 1.0)) == 0.25
    await done(advisor.close())


# -------------------------------------------------------------------------------- searches


async def test_no_search_where_the_memory_decided(
    either: Any, daemon: FakeDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose learning rate the memory decided makes no search, and its result says why."""
    monkeypatch.setenv("MLRS_QUIET", "0")
    daemon.memory.decide("task", why=WHY)
    run, loop = await done(either.run("task", id="a", horizon=1000)), Loop()
    result = await done(run.search(loop))
    assert str(result) == f"no search: the memory of the task has decided the learning rate: {WHY}"
    assert not loop.calls
    await done(run.next_lr(0, 1.0))
    assert capfd.readouterr().err.count(WHY) == 1


async def test_a_search_that_is_wanted_anyway(either: Any, daemon: FakeDaemon) -> None:
    """`always` searches although the memory decided; the search then counts."""
    daemon.memory.decide("task")
    run, loop = await done(either.run("task", id="a", horizon=1000)), Loop()
    assert (await done(run.search(loop, always=True))).learning_rate is not None
    assert daemon.memory.explored["a"] == [pb.EXPLORE_CAREFUL, pb.EXPLORE_UNSPECIFIED]


async def test_a_search_beside_an_offset(either: Any, daemon: FakeDaemon) -> None:
    """Where the memory decided an offset of a model's learning rates only, a search is made."""
    daemon.memory.decide("task", base_lr=None)
    run = await done(either.run("task", id="a", horizon=1000))
    assert (await done(run.search(Loop()))).learning_rate is not None


# ------------------------------------------------------------------------- how it came out


@pytest.mark.parametrize(
    "metric", [0.75, np.float32(0.75), np.array([0.75]), torch.tensor(0.75, requires_grad=True)], ids=type
)
async def test_a_metric_is_told_at_the_end(either: Any, daemon: FakeDaemon, metric: Any) -> None:
    """The caller's measure, a number or an array of one, goes with the end of the run."""
    run = await opened(either, id="a")
    await done(run.finish(metric=metric, higher_is_better=True))
    end = daemon.memory.ends["a"]
    assert (end.metric, end.higher_is_better) == (0.75, True)


async def test_nothing_is_told_of_a_run_without_a_metric(either: Any, daemon: FakeDaemon) -> None:
    """A run that is finished as before tells nothing."""
    run = await opened(either, id="a")
    await done(run.finish())
    end = daemon.memory.ends["a"]
    assert not end.HasField("metric")
    assert not end.HasField("validation_loss")


@pytest.mark.parametrize("metric", ["0.5", np.zeros(2)], ids=str)
async def test_wrong_metrics(either: Any, daemon: FakeDaemon, metric: Any) -> None:
    """A metric that is no number is refused by its name, and the run is not finished."""
    run = await opened(either, id="a")
    with pytest.raises(InvalidArgumentError, match="metric") as caught:
        await done(run.finish(metric=metric))
    assert caught.value.field == "metric"
    with pytest.raises(InvalidArgumentError, match="higher_is_better"):
        await done(run.finish(metric=0.5, higher_is_better="yes"))
    assert not daemon.memory.ends
    assert (await done(run.finish(metric=0.5))).status == "finished"


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
async def test_metrics_that_are_not_finite(either: Any, daemon: FakeDaemon, metric: float) -> None:
    """A training whose measure is NaN or infinite is finished all the same, without a metric."""
    run = await opened(either, id="a")
    assert (await done(run.finish(metric=metric))).status == "finished"
    assert not daemon.memory.ends["a"].HasField("metric")


async def test_a_metric_is_told_again(either: Any, daemon: FakeDaemon) -> None:
    """A run that is finished takes another metric."""
    run = await opened(either, id="a")
    await done(run.finish())
    await done(run.finish(metric=2.0))
    assert daemon.memory.ends["a"].metric == 2.0


async def test_the_last_validation_loss_is_not_lost(either: Any, daemon: FakeDaemon) -> None:
    """A validation loss that no observation carried goes with the end, one that was carried does not."""
    run = await opened(either, id="a")
    run.validate(0, 3.0)
    await done(run.next_lr(0, 1.0))
    run.validate(1, 0.5)
    await done(run.finish())
    assert daemon.memory.ends["a"].validation_loss == 0.5
    other = await opened(either, id="b")
    other.validate(0, 3.0)
    await done(other.next_lr(0, 1.0))
    await done(other.finish())
    assert not daemon.memory.ends["b"].HasField("validation_loss")


async def test_the_metrics_of_a_sweep(either: Any, daemon: FakeDaemon) -> None:
    """Each run of a sweep has its own metric; one that is not finite stands for none."""
    sweep = await done(either.sweep(["a", "b", "c"], task="task"))
    infos = await done(sweep.finish(metrics=np.array([0.5, -np.inf, 0.25]), higher_is_better=True))
    assert [info.id for info in infos] == ["a", "b", "c"]
    ends = daemon.memory.ends
    assert {run_id: end.metric for run_id, end in ends.items() if end.HasField("metric")} == {
        "a": 0.5,
        "c": 0.25,
    }
    assert ends["a"].higher_is_better


@pytest.mark.parametrize("metrics", [[0.5], [0.5, None], 0.5, ["a", "b"]], ids=str)
async def test_wrong_metrics_of_a_sweep(either: Any, daemon: FakeDaemon, metrics: Any) -> None:
    """Metrics that are not one number for each run are refused by their name."""
    sweep = await done(either.sweep(["a", "b"]))
    with pytest.raises(InvalidArgumentError, match="metrics") as caught:
        await done(sweep.finish(metrics=metrics))
    assert caught.value.field == "metrics"
    assert not daemon.memory.ends


# --------------------------------------------------------------------------- without a daemon


async def test_files_keep_what_the_memory_needs(connect: Any, daemon: FakeDaemon, tmp_path: Path) -> None:
    """A run that no daemon opened takes no part in the memory when it is pushed; its metric is told."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=tmp_path)
    run = await done(advisor.run("task", id="a", explore="full", optimizer="adam", on_unavailable="fallback"))
    await done(run.next_lr(0, 1.0))
    run.validate(1, 0.5)
    assert "no daemon" in run.why
    assert await done(run.finish(metric=0.75, higher_is_better=True)) is None
    await done(advisor.close())
    daemon.start()
    (path,) = files(tmp_path)
    await pushed(connect, daemon, path)
    assert daemon.memory.explored["a"] == [pb.EXPLORE_UNSPECIFIED]
    end = daemon.memory.ends["a"]
    assert (end.metric, end.higher_is_better, end.validation_loss) == (0.75, True, 0.5)


async def test_a_run_that_was_open_is_not_decided_again(
    connect: Any, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Pushing the rest of a run that a daemon had opened asks nothing; a sweep's metrics are told."""
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=tmp_path)
    sweep = await done(advisor.sweep(["a", "b"], task="task"))
    await done(sweep.next_lrs(0, [1.0, 2.0]))
    daemon.runs["a"].durable_step = daemon.runs["b"].durable_step = 0
    daemon.stop()
    await done(sweep.next_lrs(1, [1.0, 2.0]))
    assert await done(sweep.finish(metrics=[0.5, math.nan])) is None
    await done(advisor.close())
    daemon.start()
    (path,) = files(tmp_path)
    await pushed(connect, daemon, path)
    assert set(daemon.memory.explored["a"][1:]) == {pb.EXPLORE_UNSPECIFIED}
    assert daemon.memory.ends["a"].metric == 0.5
    assert not daemon.memory.ends["b"].HasField("metric")


async def test_a_metric_for_a_run_that_was_finished_meanwhile(
    connect: Any, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """A push of a run that has all steps and is finished still tells the metric."""
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=tmp_path)
    run = await opened(advisor, id="a")
    await done(run.next_lr(0, 1.0))
    daemon.runs["a"].durable_step = 0
    daemon.stop()
    assert await done(run.finish(metric=0.75)) is None
    await done(advisor.close())
    daemon.runs["a"].finished = True
    daemon.start()
    (path,) = files(tmp_path)
    (info,) = await pushed(connect, daemon, path)
    assert info.status == "finished"
    assert daemon.memory.ends["a"].metric == 0.75
    assert not path.exists()


# -------------------------------------------------------------------------------- the tasks


async def test_reading_tasks(either: Any, daemon: FakeDaemon) -> None:
    """Tasks are listed page by page, read with all that is remembered, and forgotten."""
    for count, name in enumerate("abcde", 1):
        daemon.memory.tasks[name] = pb.GetTaskResponse(
            task=pb.Task(name=name, runs=count), measure=pb.MEASURE_METRIC
        )
    listed = either.tasks()
    names = (
        [task.name for task in listed] if hasattr(listed, "__next__") else [one.name async for one in listed]
    )
    assert names == list("abcde")
    memory = await done(either.task("c"))
    assert (memory.task.name, memory.task.runs, memory.measure) == ("c", 3, Measure.METRIC)
    assert await done(either.forget_task("c")) == 3
    for call in (either.task, either.forget_task):
        with pytest.raises(TaskNotFoundError) as caught:
            await done(call("c"))
        assert (caught.value.reason, caught.value.field) == ("NO_TASK", "task")
    with pytest.raises(InvalidArgumentError) as wrong:
        await done(either.task("no spaces"))
    assert wrong.value.field == "name"


async def test_a_run_that_began_on_its_fallback_takes_no_part(connect: Any, daemon: FakeDaemon) -> None:
    """A run that is opened after steps of its fallback asks the memory for nothing: it trained otherwise."""
    daemon.stop()
    advisor = connect(daemon.target, timeout_s=0.2)
    run = await done(advisor.run("task", id="a", optimizer="adam", on_unavailable="fallback"))
    await done(run.next_lr(0, 1.0))
    daemon.start()
    await done(run.finish(timeout_s=20.0))
    assert daemon.memory.explored["a"] == [pb.EXPLORE_UNSPECIFIED]
