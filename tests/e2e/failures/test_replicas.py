"""Daemons that share PostgreSQL: owners that die, stand still, lose the database, or are restarted."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

import mlrs
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.domain.shards import shard_of
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip
from tests.support.reliability import save
from tests.support.runs import open_run
from tests.support.trainings.training import Undisturbed
from tests.support.trainings.workload import loss_of, settings_of, steps_of
from tests.support.tunnel import Tunnel

LEASE_S = 1.0
PATIENCE_S = 20.0
"""The deadline of clients that wait for a takeover."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


class Cluster:
    """Daemons over one database, which all serve one model by default."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self.url = folder, url
        self._stack = ExitStack()
        self.model = write_random_model(folder / "tiny.safetensors")
        self.undisturbed = Undisturbed(self.model)

    def add(self, name: str, *, url: str | None = None) -> Daemon:
        """Start a daemon."""
        arguments = ("--store", url or self.url, "--lease-s", str(LEASE_S), "--model", str(self.model))
        return self._stack.enter_context(Daemon(self._folder / name, *arguments))

    def close(self) -> None:
        """End all daemons."""
        self._stack.close()


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    """A cluster without daemons."""
    made = Cluster(tmp_path, postgres.new_database())
    yield made
    made.close()


def _follow(run: mlrs.Run, run_id: str, start: int, end: int) -> list[str]:
    return [
        run.next_lr(step, loss_of(run_id, step), timeout_s=PATIENCE_S).hex() for step in range(start, end)
    ]


def _insisted(run: mlrs.Run, step: int, loss: float) -> str:
    """Ask again, at the default deadline, until there is advice."""
    while True:
        try:
            return run.next_lr(step, loss).hex()
        except (mlrs.UnavailableError, mlrs.errors.DeadlineExceededError):
            continue


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def _owner(run_id: str, *daemons: Daemon) -> Daemon:
    """Return the daemon that opens a run without sending its client elsewhere, once there is one."""
    found = list[Daemon]()
    _until(lambda: bool(found.extend(_owners(run_id, *daemons)) or found))
    return found[0]


def _owners(run_id: str, *daemons: Daemon) -> Iterator[Daemon]:
    for daemon in daemons:
        with grpc.insecure_channel(daemon.address) as channel:
            try:
                request = pb.OpenRunRequest(run_id=run_id, mode=pb.OPEN_MODE_RESUME)
                AdvisorServiceStub(channel).OpenRun(request, timeout=10)
            except grpc.RpcError:  # it may be moving to another
                continue
            yield daemon


def _addresses(*daemons: Daemon) -> str:
    return ",".join(daemon.address for daemon in daemons)


def _taken_over(cluster: Cluster, run_id: str, how: signal.Signals, *daemons: Daemon) -> float:
    """Take a run's owner away under way, and follow the run to its end; return how long its advice took."""
    with mlrs.connect(_addresses(*daemons)) as advisor:
        run = open_run(advisor, run_id, fallback=None, timeout_s=PATIENCE_S, **settings_of(run_id))
        lrs = _follow(run, run_id, 0, 20)
        owner = _owner(run_id, *daemons)
        owner.signal(how)
        began = time.monotonic()
        lrs.append(_insisted(run, 20, loss_of(run_id, 20)))
        took_s = time.monotonic() - began
        lrs += _follow(run, run_id, 21, 30)
        if how == signal.SIGSTOP:
            owner.signal(signal.SIGCONT)
        else:
            owner.wait()
        lrs += _follow(run, run_id, 30, steps_of(run_id))
        run.finish(timeout_s=PATIENCE_S)
        recorded = [lr.hex() for chunk in advisor.watch(run_id) for lr in chunk.learning_rates]
    assert lrs == list(cluster.undisturbed.lrs(run_id))
    assert recorded == lrs, "the woken owner wrote nothing"
    if how == signal.SIGKILL:
        owner.start()
    return took_s


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGSTOP])
def test_a_takeover_changes_no_rate(cluster: Cluster, how: signal.Signals) -> None:
    """When its owner is killed, or stands still beyond its lease, a run goes on at the other replica."""
    assert _taken_over(cluster, "run", how, cluster.add("one"), cluster.add("two")) < PATIENCE_S


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_takeovers_change_no_rate(cluster: Cluster) -> None:
    """Owners are killed, and stopped and woken, twenty times each; the figures are saved."""
    daemons = cluster.add("one"), cluster.add("two")
    began = time.monotonic()
    took = {
        how: [_taken_over(cluster, f"{how.name}-{turn}", how, *daemons) for turn in range(20)]
        for how in (signal.SIGKILL, signal.SIGSTOP)
    }
    save(
        "replicas",
        "pytest -m slow tests/e2e/failures/test_replicas.py",
        began,
        time.monotonic(),
        takeovers=sum(map(len, took.values())),
        lease_s=LEASE_S,
        longest_after_kill_s=round(max(took[signal.SIGKILL]), 2),
        longest_after_stop_s=round(max(took[signal.SIGSTOP]), 2),
        wrong_learning_rates=0,
    )


def test_an_owner_cut_off_from_the_database_is_replaced(cluster: Cluster, postgres: PostgresServer) -> None:
    """It answers on, durable for nobody; healed, it finds itself fenced off, and no rate differs."""
    with Tunnel(postgres.port) as tunnel:
        url = cluster.url.replace(f":{postgres.port}/", f":{tunnel.port}/")
        one = cluster.add("one", url=url)
        with mlrs.connect(one.address, timeout_s=PATIENCE_S) as advisor:
            run = open_run(advisor, "run", fallback=None, **settings_of("run"))
            lrs = _follow(run, "run", 0, 10)
            _until(lambda: advisor.get_run("run").durable_step == 9)
            tunnel.cut()
            lrs += _follow(run, "run", 10, 20)
            two = cluster.add("two")
            with mlrs.connect(two.address, timeout_s=PATIENCE_S) as other:
                assert _owner("run", two) is two
                assert other.get_run("run").next_step == 10, "nothing of what it answered was stored"
            tunnel.heal()
            lrs += _follow(run, "run", 20, steps_of("run"))
            run.finish()
            assert "shards_lost" in one.log.read_text(encoding="utf-8")
    assert lrs == list(cluster.undisturbed.lrs("run"))


def test_ranks_that_come_to_different_replicas_end_at_the_owner(cluster: Cluster) -> None:
    """Two processes of a job that know one replica each get the same rates."""
    one, two = cluster.add("one"), cluster.add("two")
    names = [f"job-{n}" for n in range(8)]
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(mlrs.connect(daemon.address, timeout_s=PATIENCE_S)) for daemon in (one, two)
        ]
        for name in names:
            shared = {"world_size": len(ranks), **settings_of(name)}
            runs = [open_run(advisor, name, rank=rank, **shared) for rank, advisor in enumerate(ranks)]
            pairs = []
            for step in range(10):
                pending = [run.observe(step, loss_of(name, step)) for run in runs]
                pairs.append([one.lr().hex() for one in pending])
            assert pairs == [[lr, lr] for lr in cluster.undisturbed.lrs(name)[:10]]
    assert len({shard_of(name) for name in names}) > 1


def _trained_through(cluster: Cluster, rounds: int, count: int) -> int:
    """Restart two replicas alternately under training loops that must not notice; return how many steps."""
    daemons = [cluster.add("one"), cluster.add("two")]
    addresses, done = _addresses(*daemons), threading.Event()

    def train(name: str) -> int:
        """Follow runs, slowly, until the restarts are over."""
        steps = 0
        with mlrs.connect(addresses) as advisor:
            while not (steps and done.is_set()):
                run_id = f"{name}-{steps}"
                lrs, reasons = list[str](), set[mlrs.AdviceReason]()
                with advisor.run(
                    "task", id=run_id, on_existing="resume", memory=False, **settings_of(run_id)
                ) as run:
                    for step in range(steps_of(run_id)):
                        loss = loss_of(run_id, step)
                        advice = run.observe(step, loss).advice()
                        lrs.append(advice.learning_rate.hex())
                        if math.isfinite(loss):
                            reasons.add(advice.reason)
                        done.wait(0.1)
                    assert run.fallback_steps == 0
                assert lrs == list(cluster.undisturbed.lrs(run_id))
                assert reasons <= {mlrs.AdviceReason.FRESH, mlrs.AdviceReason.REPLAYED}
                steps += len(lrs)
        return steps

    with ThreadPoolExecutor(count) as threads:
        training = [threads.submit(train, f"run-{index}") for index in range(count)]
        try:
            for _ in range(rounds):
                for daemon in daemons:
                    assert daemon.stop() == 0
                    daemon.start()
        finally:
            done.set()
        return sum(result.result(120) for result in training)


def test_a_rolling_restart_is_seen_by_no_training_loop(cluster: Cluster) -> None:
    """While every replica is stopped and started again, no step is held, answered by a fallback, or fails."""
    assert _trained_through(cluster, rounds=1, count=12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_rolling_restarts_are_seen_by_no_training_loop(cluster: Cluster) -> None:
    """Ten rounds of restarts under 24 loops; the figures are saved."""
    began = time.monotonic()
    steps = _trained_through(cluster, rounds=10, count=24)
    save(
        "rolling_restart",
        "pytest -m slow tests/e2e/failures/test_replicas.py",
        began,
        time.monotonic(),
        restarts=20,
        loops=24,
        steps=steps,
        held=0,
        fallback=0,
        errors=0,
    )
