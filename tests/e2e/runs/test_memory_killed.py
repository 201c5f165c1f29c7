"""What is remembered of a task when daemons are killed, and where replicas share a store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.ops.checking import check_runs, check_whole
from mlrs_server.storage import open_store
from tests.e2e.runs.test_beginnings_killed import TIMEOUT_S, Scene
from tests.server.runs.searches import loss_of
from tests.server.support import LOSSES, columns
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip
from tests.support.stubs import Stub

HORIZON = 400
CONFIG: Any = {"horizon": HORIZON, "optimizer": pb.OPTIMIZER_ADAM, "batch_size": 8}
PART = 390
"""The steps that are stored before a daemon is killed; the others are not."""


@contextmanager
def connected(daemon: Daemon) -> Iterator[Any]:
    """Yield a stub of a daemon."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        yield Stub(channel)


def call(stub: Any, rpc: str, message: Any) -> Any:
    """Return the answer to a call."""
    return getattr(stub, rpc)(message, timeout=TIMEOUT_S, wait_for_ready=True)


def dies(stub: Any, rpc: str, message: Any) -> None:
    """Make a call that the daemon does not outlive."""
    with pytest.raises(grpc.RpcError) as caught:
        call(stub, rpc, message)
    trailing: Any = caught.value
    assert "mlrs-reason" not in dict(trailing.trailing_metadata() or ())


def opening(run_id: str, mode: int = pb.OPEN_MODE_BEGIN, **request: Any) -> pb.OpenRunRequest:
    """Return the request to open a run of the task."""
    asked: Any = {"explore": pb.EXPLORE_FULL, "feeder": "feeder", "mode": mode, **request}
    return pb.OpenRunRequest(run_id=run_id, task="task", config=pb.RunConfig(**CONFIG), **asked)


def followed(stub: Any, run_id: str, start: int, end: int) -> list[float]:
    """Return the learning rates of steps of a run, sent in one message."""
    opened = call(stub, "OpenRun", pb.OpenRunRequest(run_id=run_id, mode=pb.OPEN_MODE_RESUME))
    message = columns(*((opened.run_handle, step, LOSSES[step]) for step in range(start, end)))
    (answer,) = call(stub, "StreamAdvice", iter([message]))
    assert not answer.advice.errors
    return list(answer.advice.learning_rates)


def searched(stub: Any, run_id: str) -> None:
    """Search for the learning rate of a run."""
    request = pb.SearchTrialRequest(run_id=run_id, start="s")
    while (search := call(stub, "SearchTrial", request).search).HasField("trial"):
        trial = search.trial
        result = pb.TrialResult(number=trial.number, loss=loss_of(trial), steps=trial.steps)
        request = pb.SearchTrialRequest(run_id=run_id, start="s", result=result)


def begin_task(stub: Any) -> None:
    """Make the first run of the task, `a`, with a search."""
    call(stub, "OpenRun", opening("a"))
    searched(stub, "a")
    followed(stub, "a", 0, HORIZON)
    call(stub, "FinishRun", pb.FinishRunRequest(run_id="a", metric=0.5))


def task_of(stub: Any) -> pb.GetTaskResponse:
    """Return what is remembered of the task."""
    answer = call(stub, "GetTask", pb.GetTaskRequest(task="task"))
    assert isinstance(answer, pb.GetTaskResponse)
    return answer


def remembered(stub: Any) -> list[tuple[str, float | None]]:
    """Return the runs of the task, the newest first, each with its metric, if it was finished with one."""
    return [(run.run_id, run.metric if run.HasField("metric") else None) for run in task_of(stub).runs]


def config_of(stub: Any, run_id: str) -> pb.RunConfig:
    """Return a run's config."""
    config: pb.RunConfig = call(stub, "GetRun", pb.GetRunRequest(run_id=run_id)).run.config
    return config


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A daemon that runs, with a task of one run."""
    made = Scene(tmp_path)
    made.start()
    with connected(made.daemon) as stub:
        begin_task(stub)
    yield made
    made.daemon.__exit__()


def check(scene: Scene, names: Sequence[str]) -> None:
    """Stop the daemon, and check that its store is whole, and that every run is replayed to its bits."""
    assert scene.daemon.stop() == 0
    with closing(open_store(scene.daemon.data_dir / "mlrs.sqlite3")) as store:
        assert check_whole(store) == []
        checked = list(check_runs(store, ModelCatalog(asking(store), default=str(scene.model))))
        assert [(one.run_id, one.problem) for one in checked] == [(name, "") for name in names]
        assert len(store.past_runs("task", 99)) == len(names)


# ----------------------------------------------------------------------------------- finishing


@pytest.mark.parametrize(
    ("point", "finished", "stored"),
    [
        pytest.param("journal.store=kill", False, False, marks=pytest.mark.slow),
        pytest.param("store.commit=kill", False, False, marks=pytest.mark.slow),
        pytest.param("store.committed=kill:2", False, True, marks=pytest.mark.slow),
        ("lifecycle.finish=kill", False, True),
        ("store.committed=kill:3", True, True),
        ("lifecycle.finished=kill", True, True),
    ],
)
def test_what_is_remembered_is_what_was_finished(
    scene: Scene, point: str, *, finished: bool, stored: bool
) -> None:
    """Killed anywhere as runs are finished, the daemon remembers the end of all or of none, and once each."""
    finishing = pb.BatchFinishRunsRequest(run_ids=["b", "c"], metrics=[0.25, 0.75])
    with connected(scene.daemon) as stub:
        for run_id in "bc":
            call(stub, "OpenRun", opening(run_id))
            followed(stub, run_id, 0, PART)
        configs = [config_of(stub, run_id) for run_id in "bc"]
        assert scene.daemon.stop() == 0  # which stores all
        scene.start(point)
        for run_id in "bc":
            followed(stub, run_id, PART, HORIZON)
        dies(stub, "BatchFinishRuns", finishing)
        scene.died()
        metrics = [("c", 0.75), ("b", 0.25)] if finished else [("c", None), ("b", None)]
        assert remembered(stub) == [*metrics, ("a", 0.5)]
        runs = [call(stub, "GetRun", pb.GetRunRequest(run_id=run_id)).run for run_id in "bc"]
        assert {run.status == pb.RUN_STATUS_FINISHED for run in runs} == {finished}
        assert {run.next_step for run in runs} == {HORIZON if stored else PART}
        assert [run.config for run in runs] == configs
        if not stored:
            for run_id in "bc":
                followed(stub, run_id, PART, HORIZON)
        call(stub, "BatchFinishRuns", finishing)
        task = task_of(stub)
        assert [(run.run_id, run.metric, run.ending) for run in task.runs] == [
            ("c", 0.75, pb.ENDING_REACHED),
            ("b", 0.25, pb.ENDING_REACHED),
            ("a", 0.5, pb.ENDING_REACHED),
        ]
        assert task.task.runs == 3
    check(scene, "abc")


# ------------------------------------------------------------------------------------ creating


@pytest.mark.parametrize(
    ("point", "created"),
    [
        ("store.create=kill", False),
        pytest.param("store.committed=kill:2", True, marks=pytest.mark.slow),
        ("lifecycle.created=kill", True),
    ],
)
def test_a_run_has_one_arm_though_its_opening_was_lost(scene: Scene, point: str, *, created: bool) -> None:
    """Killed as it creates a run, the daemon has decided for it once: whoever asks again gets that arm."""
    with connected(scene.daemon) as stub:
        call(stub, "OpenRun", opening("b"))
        decided = call(stub, "OpenRun", opening("x", explore=pb.EXPLORE_FULL)).run.config
        call(stub, "DeleteRun", pb.DeleteRunRequest(run_id="x"))  # it said what the next one gets
        assert scene.daemon.stop() == 0
        scene.start(point)
        dies(stub, "OpenRun", opening("c"))
        scene.died()
        runs = ["c", "b", "a"] if created else ["b", "a"]
        assert [run.run_id for run in task_of(stub).runs] == runs
        config = call(stub, "OpenRun", opening("c")).run.config
        assert config == decided
        assert call(stub, "OpenRun", opening("c")).run.config == config
        assert [run.run_id for run in task_of(stub).runs] == ["c", "b", "a"]
        assert task_of(stub).task.runs == 3
    check(scene, "abc")


@pytest.mark.parametrize("left", ["nothing", "some steps"])
def test_an_open_run_keeps_its_arm(scene: Scene, left: str) -> None:
    """A run that is open as the daemon is killed has the same arm and learning rates afterwards."""
    with connected(scene.daemon) as stub:
        config = call(stub, "OpenRun", opening("b")).run.config
        assert config.recalled.decided
        lrs = followed(stub, "b", 0, 40)
        if left == "some steps":
            assert scene.daemon.stop() == 0
            scene.start()
            followed(stub, "b", 0, 60)
        call(stub, "OpenRun", opening("c"))
        scene.daemon.kill()
        scene.start()
        call(stub, "FinishRun", pb.FinishRunRequest(run_id="c", metric=0.1))
        assert config_of(stub, "b") == config
        again = call(stub, "OpenRun", opening("b", pb.OPEN_MODE_UNSPECIFIED)).run
        assert again.config == config
        assert again.next_step == (0 if left == "nothing" else 40)
        assert followed(stub, "b", 0, 40) == lrs


@pytest.mark.parametrize(
    "point",
    [
        "store.create=kill",
        pytest.param("store.committed=kill:2", marks=pytest.mark.slow),
        pytest.param("lifecycle.created=kill", marks=pytest.mark.slow),
    ],
)
def test_a_restart_in_a_crash_keeps_the_arm(scene: Scene, point: str) -> None:
    """Killed anywhere as a run is begun anew, the daemon has the run with the arm that it had, once."""
    with connected(scene.daemon) as stub:
        config = call(stub, "OpenRun", opening("b")).run.config
        followed(stub, "b", 0, 20)
        call(stub, "OpenRun", opening("c"))
        assert scene.daemon.stop() == 0
        scene.start(point)
        dies(stub, "OpenRun", opening("b", pb.OPEN_MODE_RESTART))
        scene.died()
        assert config_of(stub, "b") == config
        assert sorted(run.run_id for run in task_of(stub).runs) == ["a", "b", "c"]
        again = call(stub, "OpenRun", opening("b", pb.OPEN_MODE_RESTART)).run
        assert (again.config, again.next_step) == (config, 0)
        assert sorted(run.run_id for run in task_of(stub).runs) == ["a", "b", "c"]
    check(scene, "abc")


def test_a_task_that_was_forgotten_stays_forgotten(scene: Scene) -> None:
    """Killed as soon as a task is forgotten, the daemon remembers nothing of it, also not as its runs end."""
    with connected(scene.daemon) as stub:
        call(stub, "OpenRun", opening("b"))
        assert scene.daemon.stop() == 0
        scene.start("store.committed=kill:2")
        dies(stub, "ForgetTask", pb.ForgetTaskRequest(task="task"))
        scene.died()
        call(stub, "FinishRun", pb.FinishRunRequest(run_id="b", metric=0.25))
        assert call(stub, "ListTasks", pb.ListTasksRequest()) == pb.ListTasksResponse()
        first = call(stub, "OpenRun", opening("c")).run.config
        assert not first.recalled.decided


# ------------------------------------------------------------------------------------ replicas


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


def opened_here(stub: Any) -> pb.Run:
    """Open a run of the task at a replica; of which id depends on which runs are the replica's."""
    end, number = time.monotonic() + TIMEOUT_S, 0
    while time.monotonic() < end:
        number += 1
        try:
            run: pb.Run = call(stub, "OpenRun", opening(f"run-{number}", explore=pb.EXPLORE_CAREFUL)).run
        except grpc.RpcError as error:
            trailing: Any = error
            assert dict(trailing.trailing_metadata() or ()).get("mlrs-reason") == "ERROR_REASON_NOT_OWNER"
        else:
            return run
    raise AssertionError("the replica owns nothing")


def test_a_run_that_ended_at_one_replica_is_known_to_the_other(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """What a run at one replica has shown is what the next run of the task gets at another one."""
    model = write_random_model(tmp_path / "model.safetensors")
    arguments = ("--store", postgres.new_database(), "--lease-s", "1", "--model", str(model))
    with Daemon(tmp_path / "one", *arguments) as one, connected(one) as of_one:
        begin_task(of_one)
        found = config_of(of_one, "a").found.learning_rate
        with Daemon(tmp_path / "two", *arguments) as two, connected(two) as of_two:
            wanted = task_of(of_two)
            assert wanted == task_of(of_one)
            run = opened_here(of_two)
            assert run.config.recalled == wanted.next
            assert run.config.schedule.base_lr == wanted.next_arm.learning_rate
            assert run.config.schedule.base_lr == pytest.approx(found, rel=1.0)
            two.kill()
        known = [(each.run_id, each.ending) for each in task_of(of_one).runs]
        assert known == [(run.run_id, pb.ENDING_UNDER_WAY), ("a", pb.ENDING_REACHED)]
        assert call(of_one, "ForgetTask", pb.ForgetTaskRequest(task="task")).runs == 2
        assert call(of_one, "ListTasks", pb.ListTasksRequest()) == pb.ListTasksResponse()
