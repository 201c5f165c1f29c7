"""A daemon that is stopped while its store does not answer."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip

TIMEOUT = 20
DRAIN_S = 3.0
STORE_S = 15.0
"""How long one operation may take at a store that stands still: the statement, and one new connection."""
MARGIN_S = 5.0
"""For the last flush to be given up, for the process to end, and for a busy machine."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


@pytest.fixture
def daemon(tmp_path: Path, postgres: PostgresServer) -> Iterator[Daemon]:
    """A daemon over a database of its own, which has answered ten steps of run `a`."""
    model = write_random_model(tmp_path / "tiny.safetensors")
    arguments = ["--store", postgres.new_database(), "--model", str(model), "--flush-interval-s", "30"]
    arguments += ["--drain-timeout-s", str(DRAIN_S), "--log-format", "json"]
    with Daemon(tmp_path / "d", *arguments) as made:
        with grpc.insecure_channel(made.address) as connection:
            stub = AdvisorServiceStub(connection)
            stub.OpenRun(pb.OpenRunRequest(run_id="a"), timeout=TIMEOUT)
            for step in range(10):
                stub.Advise(pb.AdviseRequest(run_id="a", step=step, loss=2.0), timeout=TIMEOUT)
        yield made


def _create_many(address: str) -> None:
    """Ask for 20 runs at once, and give up on all of them."""
    with grpc.insecure_channel(address) as connection, ThreadPoolExecutor(20) as threads:
        stub = AdvisorServiceStub(connection)

        def create(index: int) -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as refusal:
                stub.OpenRun(pb.OpenRunRequest(run_id=f"late-{index}"), timeout=2)
            return refusal.value.code()

        assert set(threads.map(create, range(20))) == {grpc.StatusCode.DEADLINE_EXCEEDED}


def _last_error(daemon: Daemon) -> dict[str, str]:
    """Return what the daemon logged of a store that failed at its exit."""
    lines = daemon.log.read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    (found,) = [line for line in logged if line["event"] == "store_failing_at_exit"]
    return dict(found)


@pytest.mark.parametrize("calls", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_store_that_stands_still_holds_no_exit_up(
    daemon: Daemon, postgres: PostgresServer, *, calls: bool
) -> None:
    """With calls queued for it or not, the daemon ends within its limit and one operation, and says so."""
    postgres.pause()
    try:
        if calls:
            _create_many(daemon.address)
        stopped = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 1
        took_s = time.monotonic() - stopped
    finally:
        postgres.resume()
    assert took_s < DRAIN_S + STORE_S + MARGIN_S
    problem = _last_error(daemon)["problem"]
    assert "answers are not stored" in problem
    assert ("calls that change runs were cut off" in problem) == calls
    daemon.start()
    with grpc.insecure_channel(daemon.address) as connection:
        stub = AdvisorServiceStub(connection)
        resume = pb.OpenRunRequest(run_id="a", mode=pb.OPEN_MODE_RESUME)
        assert stub.OpenRun(resume, timeout=TIMEOUT).run.next_step in {0, 10}
    assert daemon.stop() == 0, "a store that answers loses nothing, and the exit says so"
