"""The memory of tasks over real sockets: what is listed, read and forgotten, and what is refused."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_core.policy import Floats
from mlrs_proto import v1 as pb
from tests.server.rpc.test_search_service import searched
from tests.server.support import LOSSES, Refusal, advised, refused, service

Code = grpc.StatusCode
TIMEOUT = 20
HORIZON = 40
CONFIG: Any = {"horizon": HORIZON, "optimizer": pb.OPTIMIZER_ADAM, "batch_size": 8}
MALFORMED = ["", "!", "acme!task", "-a", "a b", "a\n", "é", "x" * 257]


@pytest.fixture
async def stub(tmp_path: Path, model_file: Path) -> AsyncIterator[Any]:
    """A daemon's stub."""
    async with service(tmp_path / "d", model_file) as (connected, _):
        yield connected


async def opened(
    stub: Any, run_id: str, task: str = "task", *, explore: int = pb.EXPLORE_CAREFUL, **config: Any
) -> pb.Run:
    """Open a run of a task."""
    request = pb.OpenRunRequest(
        run_id=run_id,
        task=task,
        config=pb.RunConfig(**{**CONFIG, **config}),
        explore=explore,  # type: ignore[arg-type]  # some are not the contract's
    )
    response = await stub.OpenRun(request, timeout=TIMEOUT)
    run: pb.Run = response.run
    return run


async def finish(stub: Any, run_id: str, **told: Any) -> None:
    """Finish a run."""
    await stub.FinishRun(pb.FinishRunRequest(run_id=run_id, **told), timeout=TIMEOUT)


async def trained(
    stub: Any, run_id: str, losses: Sequence[float] | Floats = LOSSES[:HORIZON], **told: Any
) -> pb.Run:
    """Make a run of the task `task`."""
    run = await opened(stub, run_id)
    await advised(stub, run_id, losses)
    await finish(stub, run_id, **told)
    return run


async def task_of(stub: Any, task: str = "task") -> pb.GetTaskResponse:
    """Read a task."""
    response = await stub.GetTask(pb.GetTaskRequest(task=task), timeout=TIMEOUT)
    assert isinstance(response, pb.GetTaskResponse)
    return response


# ------------------------------------------------------------------------------------- listing


async def test_tasks_are_listed_in_pages(stub: Any) -> None:
    """Each page holds as many tasks as asked for, by name; the last one has no token."""
    names = ["Z", "a", "a-b", "a/b", "b"]
    for index, name in enumerate(reversed(names)):
        await opened(stub, f"run-{index}", name)
    await opened(stub, "more", "a")
    pages, token = list[list[pb.Task]](), ""
    while True:
        page = await stub.ListTasks(pb.ListTasksRequest(page_size=2, page_token=token), timeout=TIMEOUT)
        pages.append(list(page.tasks))
        if not (token := page.next_page_token):
            break
    assert [[task.name for task in tasks] for tasks in pages] == [["Z", "a"], ["a-b", "a/b"], ["b"]]
    assert [task.runs for tasks in pages for task in tasks] == [1, 2, 1, 1, 1]
    whole = await stub.ListTasks(pb.ListTasksRequest(), timeout=TIMEOUT)
    assert (list(whole.tasks), whole.next_page_token) == ([task for tasks in pages for task in tasks], "")
    exact = await stub.ListTasks(pb.ListTasksRequest(page_size=5), timeout=TIMEOUT)
    assert exact.next_page_token == ""


async def test_no_task_is_listed_where_nothing_is_remembered(stub: Any) -> None:
    """A run that takes no part in the memory makes no task."""
    await opened(stub, "a", explore=pb.EXPLORE_UNSPECIFIED)
    assert await stub.ListTasks(pb.ListTasksRequest(), timeout=TIMEOUT) == pb.ListTasksResponse()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListTasksRequest(page_size=1001), "page_size"),
        *((pb.ListTasksRequest(page_token=name), "page_token") for name in MALFORMED if name),
    ],
    ids=str,
)
async def test_a_malformed_list_is_refused(stub: Any, request_: pb.ListTasksRequest, field: str) -> None:
    """A page that is too large, and a token that is no task's name, are refused by their field."""
    refusal = await refused(stub.ListTasks(request_, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, field)


# ------------------------------------------------------------------------------------- reading


async def test_a_task_of_one_run_under_way(stub: Any) -> None:
    """Before any run has ended there is no curve, and the next run would begin as a first one does."""
    run = await opened(stub, "a", momentum=0.5)
    got = await task_of(stub)
    assert (got.task.name, got.task.runs) == ("task", 1)
    assert got.task.update_time == run.create_time
    (known,) = got.runs
    assert known == pb.PastRun(
        run_id="a",
        time=run.update_time,
        ending=pb.ENDING_UNDER_WAY,
        policy=run.config.model,
        optimizer="adam",
        momentum=0.5,
        horizon=HORIZON,
        batch_size=8,
        recalled=run.config.recalled,
    )
    assert run.config.recalled == pb.Recalled(why="the first run of its task with this kind of optimizer")
    assert (got.measure, list(got.curve)) == (pb.MEASURE_UNSPECIFIED, [])
    assert not got.HasField("best")
    assert not got.HasField("next_arm")
    assert not got.next.decided


async def test_a_task_whose_runs_ended(stub: Any) -> None:
    """A task has how its runs ended, the fitted curve, and what its next run would get."""
    config: Any = {"horizon": 400}
    await opened(stub, "a", **config)
    found = (await searched(stub)).found.learning_rate
    await advised(stub, "a", LOSSES[:400])
    await finish(stub, "a", metric=0.75, higher_is_better=True, validation_loss=2.0)
    await opened(stub, "b", **config)
    await finish(stub, "b")
    got = await task_of(stub)
    stopped, ended = got.runs
    assert (stopped.run_id, stopped.ending) == ("b", pb.ENDING_STOPPED)
    assert not stopped.HasField("training_loss")
    assert not stopped.HasField("metric")
    assert (ended.run_id, ended.ending, ended.policy) == ("a", pb.ENDING_REACHED, "wsd")
    assert (ended.learning_rate, ended.searched) == (found, True)
    assert (ended.metric, ended.higher_is_better, ended.validation_loss) == (0.75, True, 2.0)
    assert ended.training_loss == pytest.approx(LOSSES[380:400].mean())
    assert got.task.update_time == stopped.time
    assert got.measure == pb.MEASURE_METRIC
    assert got.best in got.curve
    assert got.best.policy == "wsd"
    assert got.best.learning_rate == pytest.approx(found)
    assert {point.policy for point in got.curve} == {"wsd", "linear"}
    assert all(point.low <= point.value <= point.high <= 1.0 for point in got.curve)
    following = await opened(stub, "c", **config)
    assert got.next == following.config.recalled
    assert got.next.decided
    assert got.next_arm.learning_rate == following.config.schedule.base_lr
    assert following.config.schedule.WhichOneof("kind") == got.next_arm.policy
    assert (following.config.model, following.config.batch_size) == ("", 8)
    (listed,) = (await stub.ListRuns(pb.ListRunsRequest(prefix="c"), timeout=TIMEOUT)).runs
    assert listed.config == following.config


async def test_a_curve_of_a_model(stub: Any) -> None:
    """Where runs followed the model, the arms are offsets on its learning rates, without a learning rate."""
    run = await trained(stub, "a")
    got = await task_of(stub)
    assert got.measure == pb.MEASURE_TRAINING_LOSS
    assert {point.policy for point in got.curve} == {run.config.model}
    assert not any(point.HasField("learning_rate") for point in got.curve)
    offsets = [point.lr_offset for point in got.curve]
    assert offsets == sorted(set(offsets))
    assert (offsets[0], offsets[-1]) == (-1.0, 1.0)


async def test_the_newest_runs_are_shown(stub: Any) -> None:
    """At most 100 runs that ended come with a task, the newest first; all are counted."""
    names = [f"run-{index:03}" for index in range(103)]
    requests = [
        pb.OpenRunRequest(run_id=name, task="task", config=pb.RunConfig(**CONFIG), explore=pb.EXPLORE_NONE)
        for name in names
    ]
    await stub.BatchOpenRuns(pb.BatchOpenRunsRequest(requests=requests), timeout=60)
    await stub.BatchFinishRuns(pb.BatchFinishRunsRequest(run_ids=names), timeout=60)
    got = await task_of(stub)
    assert [run.run_id for run in got.runs] == names[:2:-1]
    assert got.task.runs == 103


@pytest.mark.parametrize("rpc", ["GetTask", "ForgetTask"])
async def test_a_task_of_nothing_is_not_found(stub: Any, rpc: str) -> None:
    """A task of which nothing is remembered is refused with its reason and its field."""
    await opened(stub, "task", "other", explore=pb.EXPLORE_UNSPECIFIED)
    refusal = await refused(_call(stub, rpc, "task"))
    assert refusal == Refusal(
        Code.NOT_FOUND,
        "task: nothing is remembered of 'task'; `mlrs tasks list` names the tasks",
        "ERROR_REASON_NO_TASK",
        "task",
    )


@pytest.mark.parametrize("rpc", ["GetTask", "ForgetTask"])
@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_name_is_refused(stub: Any, rpc: str, name: str) -> None:
    """A name that no task can have is refused by its field."""
    refusal = await refused(_call(stub, rpc, name))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "task")


def _call(stub: Any, rpc: str, task: str) -> Any:
    return getattr(stub, rpc)(getattr(pb, f"{rpc}Request")(task=task), timeout=TIMEOUT)


async def test_a_task_is_forgotten(stub: Any) -> None:
    """Forgetting says how many runs were remembered, and the next run begins as the first one did."""
    await trained(stub, "a")
    await opened(stub, "b")
    forgotten = await stub.ForgetTask(pb.ForgetTaskRequest(task="task"), timeout=TIMEOUT)
    assert forgotten == pb.ForgetTaskResponse(runs=2)
    assert (await refused(_call(stub, "GetTask", "task"))).code == Code.NOT_FOUND
    run = await opened(stub, "c")
    assert run.config.recalled == pb.Recalled(why="the first run of its task with this kind of optimizer")
    assert [one.run_id for one in (await task_of(stub)).runs] == ["c"]


# --------------------------------------------------------------------------- opening, finishing


@pytest.mark.parametrize("explore", [4, 77, -1])
async def test_an_unknown_explore_is_refused(stub: Any, explore: int) -> None:
    """A value of `explore` that is not the contract's is refused by its field."""
    request = pb.OpenRunRequest(run_id="a", explore=explore)  # type: ignore[arg-type]
    refusal = await refused(stub.OpenRun(request, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "explore")


async def test_a_decision_is_the_daemons_to_make(stub: Any) -> None:
    """A run that is opened with a decision of the memory is refused by the field."""
    config = pb.RunConfig(**CONFIG, recalled=pb.Recalled(why="mine", decided=True))
    request = pb.OpenRunRequest(run_id="a", config=config, explore=pb.EXPLORE_FULL)
    refusal = await refused(stub.OpenRun(request, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "config.recalled")


@pytest.mark.parametrize("batch_size", [0, 2**53 + 1, 2**64 - 1])
async def test_a_batch_size_out_of_range_is_refused(stub: Any, batch_size: int) -> None:
    """A batch size of 0, or beyond 2**53, is refused by its field."""
    request = pb.OpenRunRequest(run_id="a", config=pb.RunConfig(batch_size=batch_size))
    refusal = await refused(stub.OpenRun(request, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "config.batch_size")


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
async def test_a_metric_that_is_no_number_is_refused(stub: Any, metric: float) -> None:
    """A metric that is not finite is refused by its field, and the runs go on."""
    await opened(stub, "a")
    refusal = await refused(stub.FinishRun(pb.FinishRunRequest(run_id="a", metric=metric), timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "metric")
    batch = pb.BatchFinishRunsRequest(run_ids=["a"], metrics=[metric])
    refusal = await refused(stub.BatchFinishRuns(batch, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "metrics")
    assert [run.ending for run in (await task_of(stub)).runs] == [pb.ENDING_UNDER_WAY]


@pytest.mark.parametrize("count", [1, 3])
async def test_metrics_are_one_for_each_run(stub: Any, count: int) -> None:
    """Metrics of another number than the runs are refused by their field, and no run is finished."""
    for run_id in "ab":
        await opened(stub, run_id)
    batch = pb.BatchFinishRunsRequest(run_ids=["a", "b"], metrics=[0.5] * count)
    refusal = await refused(stub.BatchFinishRuns(batch, timeout=TIMEOUT))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "metrics")
    assert {run.ending for run in (await task_of(stub)).runs} == {pb.ENDING_UNDER_WAY}


async def test_runs_are_finished_together_with_their_metrics(stub: Any) -> None:
    """Each run of a batch gets its own metric, and all the same sign; without metrics none has any."""
    for run_id in "abc":
        await opened(stub, run_id)
    batch = pb.BatchFinishRunsRequest(run_ids=["b", "a"], metrics=[0.0, 0.5], higher_is_better=True)
    await stub.BatchFinishRuns(batch, timeout=TIMEOUT)
    await stub.BatchFinishRuns(pb.BatchFinishRunsRequest(run_ids=["c"]), timeout=TIMEOUT)
    runs = {run.run_id: run for run in (await task_of(stub)).runs}
    assert {
        name: (run.HasField("metric"), run.metric, run.higher_is_better) for name, run in runs.items()
    } == {
        "a": (True, 0.5, True),
        "b": (True, 0.0, True),
        "c": (False, 0.0, False),
    }


async def test_a_finished_run_takes_a_metric(stub: Any) -> None:
    """A metric may come after the end, and a later one replaces it."""
    await trained(stub, "a")
    for metric in (0.5, 0.25):
        await finish(stub, "a", metric=metric)
        (run,) = (await task_of(stub)).runs
        assert (run.ending, run.metric) == (pb.ENDING_REACHED, metric)
