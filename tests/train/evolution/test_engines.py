"""Every engine computes the same, whatever happens to its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import torch

from mlrs_train.evolution import yardsticks
from mlrs_train.evolution.engines.choice import EngineChoice
from mlrs_train.evolution.engines.engine import EngineError, Job, JobEngine
from mlrs_train.evolution.engines.in_process import InThisProcess
from mlrs_train.evolution.engines.local import LocalProcesses
from mlrs_train.evolution.method import Evolution, initial_phi
from mlrs_train.evolution.sample import draw_sample
from mlrs_train.method import LogRecord
from tests.train.evolution.jobs import (
    SMALL,
    Meeting,
    die,
    interrupt,
    refuse,
    sample_after_meeting,
    square,
    threads,
)

WORKERS = ["local", "ray"]
"""The engines whose workers can die."""


@pytest.fixture(scope="module")
def local() -> Iterator[JobEngine]:
    """Return the engine of two local processes, which start once."""
    engine = LocalProcesses(2)
    yield engine
    engine.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> JobEngine:
    """Return an engine by name."""
    match request.param:
        case "in-process":
            return InThisProcess()
        case "local":
            return request.getfixturevalue("local")
        case _:
            return request.getfixturevalue("ray_cluster")


QUICKLY = ["local", pytest.param("ray", marks=pytest.mark.slow)]
"""The same, for tests that take long."""


def everywhere(names: list[Any]) -> Any:
    """Run a test with each of these engines."""
    return pytest.mark.parametrize("engine", names, indirect=True)


def train(engine: JobEngine) -> tuple[Evolution, list[LogRecord | None]]:
    """Return a training that has ended, and its records."""
    method = Evolution(SMALL)
    method.engine = engine
    records = [method.advance() for _ in range(method.steps_total)]
    return method, records


@everywhere(QUICKLY)
def test_phi_does_not_depend_on_the_engine(engine: JobEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some updates phi, its average and the log are the same, bit for bit, as without workers."""
    monkeypatch.setattr(yardsticks, "EACH", 1)
    here, there = train(InThisProcess()), train(engine)
    assert torch.equal(here[0].search.phi, there[0].search.phi)
    assert torch.equal(here[0].search.average, there[0].search.average)
    assert here[1] == there[1]
    assert not torch.equal(here[0].search.phi, initial_phi(SMALL))


@everywhere(["in-process", *WORKERS])
def test_results_keep_the_order_of_the_jobs(engine: JobEngine) -> None:
    """Results come in the order of the jobs, more than there are workers; none give none."""
    assert engine.compute([Job(str(n), square, (n,)) for n in range(20)]) == [n**2 for n in range(20)]
    assert engine.compute([]) == []


@everywhere(["in-process", *WORKERS])
def test_an_error_names_its_job(engine: JobEngine) -> None:
    """A job that raises is not tried again; the error names it, and the engine goes on with other jobs."""
    jobs = [Job("Task 0", square, (2,)), Job("Task 1", refuse, (3,))]
    with pytest.raises(EngineError, match=r"^Task 1 failed:\n(?s:.*)refuse(?s:.*)ValueError: 3 is refused"):
        engine.compute(jobs)
    assert engine.compute(jobs[:1]) == [4]


@everywhere(QUICKLY)
def test_a_killed_worker_loses_nothing(engine: JobEngine, meeting: Meeting) -> None:
    """The sample of a worker that is killed in the middle of it is computed again: the same bits."""
    phi = initial_phi(SMALL)

    def kill_the_first() -> tuple[int, int]:
        with meeting.worker() as (connection, first):
            os.kill(first, signal.SIGKILL)
            assert connection.recv(1) == b""
        with meeting.worker() as (connection, second):
            connection.sendall(b"!")
        return first, second

    jobs = [Job(str(n), draw_sample, (SMALL, phi, 0, n)) for n in range(4)]
    jobs[1] = Job("1", sample_after_meeting, (meeting.port, SMALL, phi, 0, 1))
    with ThreadPoolExecutor(1) as threads:
        processes = threads.submit(kill_the_first)
        samples = engine.compute(jobs)
        first, second = processes.result()
    assert first != second
    for index, sample in enumerate(samples):
        assert torch.equal(sample.estimate, draw_sample(SMALL, phi, 0, index).estimate)


@pytest.mark.slow
@everywhere(QUICKLY)
def test_a_job_that_no_worker_survives_is_given_up(engine: JobEngine) -> None:
    """A job that kills every worker ends in an error that names it; the engine goes on with others."""
    with pytest.raises(EngineError, match="Task 7 was given to 5 workers"):
        engine.compute([Job("Task 7", die, ()), Job("Task 8", square, (1,))])
    assert engine.compute([Job("Task 9", square, (3,))]) == [9]


@everywhere(WORKERS)
def test_workers_compute_with_one_thread(engine: JobEngine) -> None:
    """Workers use one thread each, so that sums have one order, whatever the environment says."""
    assert engine.compute([Job("threads", threads, ())] * 4) == [1] * 4


@everywhere(WORKERS)
def test_workers_leave_ctrl_c_to_the_parent(engine: JobEngine) -> None:
    """SIGINT, which a terminal sends to every process, does not disturb a worker."""
    assert os.getpid() not in engine.compute([Job("Ctrl-C", interrupt, ())] * 4)


def test_a_worker_that_dies_idle_is_replaced(meeting: Meeting) -> None:
    """A worker that is killed between two updates is replaced in the next."""

    def let_go() -> int:
        with meeting.worker() as (connection, process):
            connection.sendall(b"!")
        return process

    phi = initial_phi(SMALL)
    with closing(LocalProcesses(1)) as engine, ThreadPoolExecutor(1) as threads:
        process = threads.submit(let_go)
        engine.compute([Job("first", sample_after_meeting, (meeting.port, SMALL, phi, 0, 0))])
        os.kill(process.result(), signal.SIGKILL)
        assert engine.compute([Job("second", square, (5,))]) == [25]


def test_our_own_cluster_is_private(ray_cluster: JobEngine) -> None:
    """A cluster that is started for a training listens on the loopback interface only."""
    import ray

    assert ray_cluster.compute([Job("one", square, (1,))]) == [1]
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_that_does_not_answer_is_named() -> None:
    """No one at the address: an error that names it, at once."""
    meeting = Meeting()
    meeting.close()  # its port is now closed
    with pytest.raises(EngineError, match=f"no Ray cluster at 127.0.0.1:{meeting.port}"):
        EngineChoice(engine="ray", ray_address=f"127.0.0.1:{meeting.port}").open()
