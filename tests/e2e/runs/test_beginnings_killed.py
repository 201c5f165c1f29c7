"""Scripts that are run twice, openings whose answers are lost, and restarts of runs, with daemons killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Floats, Policy
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.ops.checking import check_runs, check_whole
from mlrs_server.storage import open_store
from tests.server.support import LOSSES, replayed
from tests.support.daemon import Daemon, write_random_model
from tests.support.ports import steady_port
from tests.support.postgres import PostgresServer, postgres_or_skip

TIMEOUT_S = 60
FIRST, SECOND = "first-process", "second-process"
OLD, NEW = {"horizon": 60, "scale": 0.5}, {"horizon": 30, "num_classes": 10}


@contextmanager
def connected(daemon: Daemon) -> Iterator[Any]:
    """Yield a stub of a daemon."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        yield AdvisorServiceStub(channel)


def opened(stub: Any, mode: int, feeder: str, config: dict[str, Any], run_id: str = "run") -> Any:
    """Open a run as a process."""
    asked = pb.RunConfig(**config)
    request = pb.OpenRunRequest(run_id=run_id, config=asked, mode=mode, feeder=feeder)  # type: ignore[arg-type]
    return stub.OpenRun(request, timeout=TIMEOUT_S, wait_for_ready=True)


def refused(stub: Any, mode: int, feeder: str, config: dict[str, Any], run_id: str = "run") -> str:
    """Return the reason for which a process may not open a run; "" is none of the daemon's."""
    with pytest.raises(grpc.RpcError) as caught:
        opened(stub, mode, feeder, config, run_id)
    reason = str(dict(caught.value.trailing_metadata() or ()).get("mlrs-reason", ""))
    return reason.removeprefix("ERROR_REASON_")


def followed(stub: Any, start: int, losses: Floats, run_id: str = "run") -> list[float]:
    """Return the learning rates of losses from a step on."""
    return [
        stub.Advise(
            pb.AdviseRequest(run_id=run_id, step=step, loss=loss), timeout=TIMEOUT_S, wait_for_ready=True
        ).learning_rate
        for step, loss in enumerate(losses, start)
    ]


def record_of(stub: Any, run_id: str = "run") -> tuple[list[float], list[float]]:
    """Return the losses and the learning rates of a run."""
    parts = list(stub.WatchRun(pb.WatchRunRequest(run_id=run_id), timeout=TIMEOUT_S, wait_for_ready=True))
    return (
        [loss for part in parts for loss in part.losses],
        [lr for part in parts for lr in part.learning_rates],
    )


class Scene:
    """A daemon that stores late, so that a test decides what is stored, and its model."""

    def __init__(self, folder: Path) -> None:
        self.model = write_random_model(folder / "model.safetensors")
        self.policy: Policy = read_model(self.model)[0].policy()
        self.daemon = Daemon(
            folder / "data",
            "--model",
            str(self.model),
            "--flush-interval-s",
            "60",
            listen=f"127.0.0.1:{steady_port()}",
        )

    def alone(self, config: dict[str, Any], losses: Floats) -> list[float]:
        """Return the learning rates of a run that never was another."""
        lrs: list[float] = replayed(self.policy, RunConfig(**config), losses).tolist()
        return lrs

    def start(self, failpoint: str = "") -> None:
        """Start the daemon, which is to fail at a point."""
        self.daemon.environment = {"MLRS_FAILPOINT": failpoint} if failpoint else {}
        self.daemon.start()

    def died(self) -> None:
        """Wait until the daemon has killed itself, and start it again."""
        assert self.daemon.wait() == -signal.SIGKILL
        self.start()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A daemon that runs."""
    made = Scene(tmp_path)
    made.start()
    yield made
    made.daemon.__exit__()


def test_a_script_that_is_run_twice(scene: Scene) -> None:
    """The second time the id is taken, whether the first has ended or not; the ways out lead on."""
    with connected(scene.daemon) as stub:
        assert opened(stub, pb.OPEN_MODE_BEGIN, FIRST, NEW).created
        followed(stub, 0, LOSSES[:20])
        for end in (False, True):
            if end:
                stub.FinishRun(pb.FinishRunRequest(run_id="run"), timeout=TIMEOUT_S)
            assert refused(stub, pb.OPEN_MODE_BEGIN, SECOND, NEW) == "RUN_EXISTS"
        scene.daemon.kill()
        scene.start()
        assert refused(stub, pb.OPEN_MODE_BEGIN, SECOND, NEW) == "RUN_EXISTS"
        assert refused(stub, pb.OPEN_MODE_UNSPECIFIED, SECOND, NEW) == "RUN_FINISHED"
        assert opened(stub, pb.OPEN_MODE_BEGIN, SECOND, NEW, "another").created
        assert opened(stub, pb.OPEN_MODE_RESTART, SECOND, NEW).created
        assert followed(stub, 0, LOSSES[20:40]) == scene.alone(NEW, LOSSES[20:40])
        resumed = opened(stub, pb.OPEN_MODE_UNSPECIFIED, FIRST, {})
        assert resumed.run.next_step == 20


@pytest.mark.parametrize(
    ("mode", "point"),
    [
        (pb.OPEN_MODE_CREATE, "lifecycle.created"),
        (pb.OPEN_MODE_BEGIN, "store.committed"),
        *(
            pytest.param(mode, point, marks=pytest.mark.slow)
            for mode in (pb.OPEN_MODE_CREATE, pb.OPEN_MODE_BEGIN, pb.OPEN_MODE_RESTART)
            for point in ("store.create", "store.committed", "lifecycle.created")
        ),
    ],
)
def test_an_opening_whose_answer_was_lost_may_be_made_again(scene: Scene, mode: int, point: str) -> None:
    """A daemon killed as it creates a run has a run for the process that asks again, and for no other."""
    assert scene.daemon.stop() == 0
    scene.start(f"{point}=kill:2" if point == "store.committed" else f"{point}=kill")  # the start commits
    with connected(scene.daemon) as stub:
        assert refused(stub, mode, FIRST, NEW) == ""
        scene.died()
        if point != "store.create":
            assert refused(stub, pb.OPEN_MODE_CREATE, SECOND, NEW) == "RUN_EXISTS"
        again = opened(stub, mode, FIRST, NEW)
        assert again.created or mode == pb.OPEN_MODE_BEGIN
        assert (again.run.next_step, again.took_over) == (0, False)
        assert opened(stub, mode, FIRST, NEW).run.next_step == 0
        assert followed(stub, 0, LOSSES[:20]) == scene.alone(NEW, LOSSES[:20])


def test_steps_that_were_lost_with_the_daemon_do_not_take_an_id(scene: Scene) -> None:
    """After a kill a process that had observed nothing that is stored begins at step 0 with its run."""
    with connected(scene.daemon) as stub:
        opened(stub, pb.OPEN_MODE_BEGIN, FIRST, NEW)
        followed(stub, 0, LOSSES[:5])
        scene.daemon.kill()
        scene.start()
        assert opened(stub, pb.OPEN_MODE_BEGIN, FIRST, NEW).run.next_step == 0
        assert followed(stub, 0, LOSSES[10:20]) == scene.alone(NEW, LOSSES[10:20])


@pytest.mark.parametrize(
    ("point", "finished", "left"),
    [
        pytest.param("journal.store=kill", False, 20, marks=pytest.mark.slow),
        pytest.param("store.commit=kill", False, 20, marks=pytest.mark.slow),
        pytest.param("store.committed=kill:2", False, 25, marks=pytest.mark.slow),
        pytest.param("journal.stored=kill", False, 25, marks=pytest.mark.slow),
        ("store.create=kill", False, 25),
        ("store.committed=kill:3", False, None),
        pytest.param("lifecycle.created=kill", False, None, marks=pytest.mark.slow),
        pytest.param("store.create=kill", True, 20, marks=pytest.mark.slow),
        ("store.committed=kill:2", True, None),
        pytest.param("lifecycle.created=kill", True, None, marks=pytest.mark.slow),
    ],
)
def test_a_restart_in_a_crash_leaves_the_old_run_or_the_new_one(
    scene: Scene, point: str, left: int | None, *, finished: bool
) -> None:
    """Killed anywhere in a restart, the daemon has one of the two runs whole; the next restart ends well."""
    with connected(scene.daemon) as stub:
        opened(stub, pb.OPEN_MODE_BEGIN, FIRST, OLD)
        followed(stub, 0, LOSSES[:20])
        if finished:
            stub.FinishRun(pb.FinishRunRequest(run_id="run"), timeout=TIMEOUT_S)
        assert scene.daemon.stop() == 0  # which stores all
        scene.start(point)
        if not finished:
            followed(stub, 20, LOSSES[20:25])  # which the restart finds in memory
        assert refused(stub, pb.OPEN_MODE_RESTART, SECOND, NEW) == ""
        scene.died()
        run = stub.GetRun(pb.GetRunRequest(run_id="run"), timeout=TIMEOUT_S, wait_for_ready=True).run
        losses, lrs = record_of(stub)
        if left is None:
            assert (run.config.horizon, run.config.num_classes, run.config.HasField("scale")) == (
                30,
                10,
                False,
            )
            assert (run.next_step, run.status, losses) == (0, pb.RUN_STATUS_ACTIVE, [])
        else:
            assert (run.config.horizon, run.config.scale, run.config.HasField("num_classes")) == (
                60,
                0.5,
                False,
            )
            assert (run.next_step, run.status == pb.RUN_STATUS_FINISHED) == (left, finished)
            assert losses == LOSSES[:left].tolist()
            assert lrs == scene.alone(OLD, LOSSES[:left])
        again = opened(stub, pb.OPEN_MODE_RESTART, SECOND, NEW)
        assert again.created
        assert followed(stub, 0, LOSSES[40:60]) == scene.alone(NEW, LOSSES[40:60])
        assert scene.daemon.stop() == 0
    with closing(open_store(scene.daemon.data_dir / "mlrs.sqlite3")) as store:
        assert check_whole(store) == []
        catalog = ModelCatalog(asking(store), default=str(scene.model))
        (checked,) = check_runs(store, catalog)
        assert (checked.steps, checked.problem) == (20, "")


def test_a_take_over_in_a_crash_leaves_one_feeder(scene: Scene) -> None:
    """A daemon killed as a process takes a run over has it for the one that asks first; no step is lost."""
    with connected(scene.daemon) as stub:
        opened(stub, pb.OPEN_MODE_BEGIN, FIRST, NEW)
        lrs = followed(stub, 0, LOSSES[:10])
        assert scene.daemon.stop() == 0
        scene.start("lifecycle.taken=kill")
        assert refused(stub, pb.OPEN_MODE_UNSPECIFIED, SECOND, {}) == ""
        scene.died()
        again = opened(stub, pb.OPEN_MODE_UNSPECIFIED, SECOND, {})
        assert (again.run.next_step, again.created) == (10, False)
        assert lrs + followed(stub, 10, LOSSES[10:20]) == scene.alone(NEW, LOSSES[:20])


# -------------------------------------------------------------------------------------- replicas


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


def test_another_replica_knows_the_feeder(tmp_path: Path, postgres: PostgresServer) -> None:
    """A creation, and a restart, whose replica was killed before it answered is asked for again elsewhere."""
    model = write_random_model(tmp_path / "model.safetensors")
    policy = read_model(model)[0].policy()
    arguments = ("--store", postgres.new_database(), "--lease-s", "1", "--model", str(model))
    point = {"MLRS_FAILPOINT": "lifecycle.created=kill"}
    for mode, config in ((pb.OPEN_MODE_CREATE, OLD), (pb.OPEN_MODE_RESTART, NEW)):
        name = pb.OpenMode.Name(mode)
        one = Daemon(tmp_path / f"one-{name}", *arguments, environment=point)
        two = Daemon(tmp_path / f"two-{name}", *arguments)
        with one, connected(one) as of_one:
            assert insisted(of_one, mode, FIRST, config) is None
            assert one.wait() == -signal.SIGKILL
            with two, connected(two) as of_two:
                again = insisted(of_two, mode, FIRST, config)
                assert again.created
                assert (again.run.next_step, again.run.config.horizon) == (0, config["horizon"])
                assert refused(of_two, pb.OPEN_MODE_CREATE, SECOND, config) == "RUN_EXISTS"
                wanted = replayed(policy, RunConfig(**config), LOSSES[:20]).tolist()
                assert followed(of_two, 0, LOSSES[:20]) == wanted
                assert two.stop() == 0


def insisted(stub: Any, mode: int, feeder: str, config: dict[str, Any]) -> Any:
    """Open a run at a replica, once it has what others had; `None` is that the replica died of it."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            return opened(stub, mode, feeder, config)
        except grpc.RpcError as error:
            trailing: Any = error
            if not (reason := dict(trailing.trailing_metadata() or ()).get("mlrs-reason")):
                return None
            if reason != "ERROR_REASON_NOT_OWNER":
                raise
        time.sleep(0.05)
    raise AssertionError("another replica has the run")
