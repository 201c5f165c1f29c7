"""The daemon as a process: it starts, drains, dies and comes back, and no learning rate changes."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.assembly import SERVICES
from mlrs_server.errors import Reason
from tests.server.support import LOSSES, advised, columns, create, raises, refused, replayed, service
from tests.support.daemon import Daemon

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
TIMEOUT = 20


def alone(model_file: Path, losses: Any, config: RunConfig | None = None) -> list[float]:
    """Return the learning rates of an undisturbed run."""
    policy = read_model(model_file)[0].policy()
    return replayed(policy, config or RunConfig(), losses).tolist()


async def health(address: str, name: str = SERVICES[0]) -> int:
    """Return the health of a daemon."""
    async with grpc.aio.insecure_channel(address) as connection:
        stub = health_pb2_grpc.HealthStub(connection)  # type: ignore[no-untyped-call]
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT)).status)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mlrs serve` to its end."""
    command = [sys.executable, "-m", "mlrs_cli", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_sigterm_drains(tmp_path: Path, model_file: Path) -> None:
    """At SIGTERM, the daemon becomes unhealthy, ends streams with a drain message, and stores everything."""
    with Daemon(tmp_path / "d", "--model", str(model_file), "--flush-interval-s", "30") as daemon:
        assert await health(daemon.address) == await health(daemon.address, "") == SERVING
        async with grpc.aio.insecure_channel(daemon.address) as connection:
            stub: Any = AdvisorServiceStub(connection)
            checks = health_pb2_grpc.HealthStub(connection)  # type: ignore[no-untyped-call]
            handle = await create(stub, "a")
            watch = checks.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]), timeout=TIMEOUT)
            assert (await watch.read()).status == SERVING
            follower = stub.WatchRun(pb.WatchRunRequest(run_id="a", follow=True), timeout=TIMEOUT)
            await follower.read()
            idle, busy = stub.StreamAdvice(timeout=TIMEOUT), stub.StreamAdvice(timeout=TIMEOUT)
            lrs = []
            for step in range(10):
                await busy.write(columns((handle, step, LOSSES[step])))
                lrs += (await busy.read()).advice.learning_rates
            await idle.write(columns((handle, 9, LOSSES[9])))
            await idle.read()
            before = time.monotonic()
            daemon.signal(signal.SIGTERM)
            assert (await watch.read()).status == NOT_SERVING
            for call in (idle, busy):
                assert (await call.read()).WhichOneof("kind") == "drain"
                assert await call.read() is grpc.aio.EOF
                assert await call.code() == grpc.StatusCode.OK
            refusal = await refused(follower)
            assert refusal.code == grpc.StatusCode.UNAVAILABLE
            assert refusal.reason == "ERROR_REASON_DRAINING"
            assert await asyncio.to_thread(daemon.wait) == 0
            assert time.monotonic() - before < 5  # the drain's own limit is 10 s; nobody held it up
            watch.cancel()
        log = daemon.log.read_text()
        assert "Traceback" not in log
        assert "stopped" in log
        daemon.start()
        async with grpc.aio.insecure_channel(daemon.address) as connection:
            stub = AdvisorServiceStub(connection)
            run = (await stub.GetRun(pb.GetRunRequest(run_id="a"), timeout=TIMEOUT)).run
            assert (run.next_step, run.durable_step) == (10, 9)
            lrs += await advised(stub, "a", LOSSES[10:20], start=10)
        assert lrs == alone(model_file, LOSSES[:20])


async def test_a_stream_finishes_its_step(tmp_path: Path, model_file: Path) -> None:
    """Steps that are in flight at SIGTERM are answered, or not taken at all."""
    with Daemon(tmp_path / "d", "--model", str(model_file)) as daemon:
        async with grpc.aio.insecure_channel(daemon.address) as connection:
            stub: Any = AdvisorServiceStub(connection)
            handle = await create(stub, "a")
            call = stub.StreamAdvice(timeout=TIMEOUT)
            lrs: list[float] = []

            async def train() -> None:
                for step in range(len(LOSSES)):
                    try:
                        await call.write(columns((handle, step, LOSSES[step])))
                    except grpc.aio.AioRpcError:  # the stream ended before the step was on its way
                        return
                    answer = await call.read()
                    if answer is grpc.aio.EOF or answer.WhichOneof("kind") == "drain":
                        return
                    lrs.extend(answer.advice.learning_rates)
                    if step == 20:
                        daemon.signal(signal.SIGTERM)

            await train()
            assert await asyncio.to_thread(daemon.wait) == 0
        daemon.start()
        async with grpc.aio.insecure_channel(daemon.address) as connection:
            stub = AdvisorServiceStub(connection)
            run = (await stub.GetRun(pb.GetRunRequest(run_id="a"), timeout=TIMEOUT)).run
            assert run.next_step == len(lrs)
            lrs += await advised(stub, "a", LOSSES[len(lrs) : len(lrs) + 5], start=len(lrs))
        assert lrs == alone(model_file, LOSSES[: len(lrs)])


def test_kill_at_any_moment_changes_no_rate(tmp_path: Path, model_file: Path) -> None:
    """Killed again and again, with only the losses after `durable_step` sent anew, no bit differs."""
    rng = random.Random(3)  # noqa: S311  # moments, not secrets
    arguments = ("--model", str(model_file), "--flush-interval-s", "0.005")
    lrs: dict[int, float] = {}
    with Daemon(tmp_path / "d", *arguments) as daemon:
        durable, kills = -1, 6
        for kill in range(kills + 1):
            with grpc.insecure_channel(daemon.address) as connection:
                stub: Any = AdvisorServiceStub(connection)
                opened = stub.OpenRun(pb.OpenRunRequest(run_id="a"), timeout=TIMEOUT, wait_for_ready=True)
                step = opened.run.next_step
                assert step > durable  # nothing that was called durable is lost
                deadline = time.monotonic() + rng.uniform(0, 0.04)
                while time.monotonic() < deadline or (kill == kills and step <= max(lrs, default=0)):
                    loss = float(LOSSES[step % len(LOSSES)])
                    answer = stub.Advise(pb.AdviseRequest(run_id="a", step=step, loss=loss), timeout=TIMEOUT)
                    if answer.HasField("durable_step"):
                        durable = max(durable, answer.durable_step)
                    assert lrs.setdefault(step, answer.learning_rate) == answer.learning_rate
                    step += 1
                if kill < kills:
                    daemon.kill()
                    daemon.start()
        assert daemon.stop() == 0
    losses = np.resize(LOSSES, len(lrs))
    assert [lrs[step] for step in range(len(lrs))] == alone(model_file, losses)


async def test_reflection_lists_the_services(tmp_path: Path, model_file: Path) -> None:
    """A tool that knows no stubs finds the services and their methods."""
    async with service(tmp_path / "d", model_file) as (_, address):  # noqa: SIM117  # one line would be too long
        async with grpc.aio.insecure_channel(address) as connection:
            stub = reflection_pb2_grpc.ServerReflectionStub(connection)  # type: ignore[no-untyped-call]
            call = stub.ServerReflectionInfo(timeout=TIMEOUT)
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            listed = (await call.read()).list_services_response.service
            assert {found.name for found in listed} >= {*SERVICES, "grpc.health.v1.Health"}
            for name in SERVICES:
                await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
                assert (await call.read()).file_descriptor_response.file_descriptor_proto
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF


async def test_a_taken_port_is_named(tmp_path: Path, model_file: Path) -> None:
    """A daemon that cannot listen names the address, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = await asyncio.to_thread(
            serve, "--listen", listen, "--data-dir", str(tmp_path / "d"), "--model", str(model_file)
        )
    assert ended.returncode == 1
    assert f"cannot listen on {listen}" in ended.stderr
    assert "--listen" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_two_daemons_cannot_share_a_folder(tmp_path: Path, model_file: Path) -> None:
    """The second daemon's error names the first, which is not disturbed."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        with raises(Reason.STORE, match="another daemon .* --data-dir"):
            async with service(tmp_path / "d", model_file):
                pass
        assert await create(stub, "a")


@pytest.mark.parametrize("kind", ["file", "under a file", "folder instead of the store"])
async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, model_file: Path, kind: str) -> None:
    """A data folder that is a file, or lies under one, is named in an error that says what to do."""
    data_dir = tmp_path / "d"
    match kind:
        case "file":
            data_dir.write_text("")
        case "under a file":
            data_dir.write_text("")
            data_dir /= "below"
        case _:
            (data_dir / "mlrs.sqlite3").mkdir(parents=True)
    with raises(Reason.STORE, match=str(data_dir)):
        async with service(data_dir, model_file):
            pass


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nobody"], "there is no model 'nobody'"),
        (["--model", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--listen", "50051"], "must be HOST:PORT"),
        (["--flush-interval-s", "0"], "flush_interval_s"),
        (["--config", "nowhere.toml"], "no file nowhere.toml"),
        (["--data-dir", "{file}"], "data"),
    ],
)
def test_a_start_that_fails_says_why(tmp_path: Path, arguments: list[str], says: str) -> None:
    """What is wrong at the start is one message and a status, never a traceback."""
    (tmp_path / "file").write_text("")
    filled = [argument.format(file=tmp_path / "file") for argument in arguments]
    if "--data-dir" not in filled:
        filled += ["--data-dir", str(tmp_path / "d")]
    ended = serve("--listen", "127.0.0.1:0", *filled) if "--listen" not in filled else serve(*filled)
    assert ended.returncode in (1, 2)
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


def test_a_start_that_the_system_refuses_has_no_traceback(tmp_path: Path) -> None:
    """A start that the system refuses, here for its limit of open files, says so without a traceback."""
    command = [sys.executable, "-m", "mlrs_cli", "serve", "--data-dir", str(tmp_path / "d")]
    limited = ["/usr/bin/env", "bash", "-c", 'ulimit -n 8; exec "$@"', "bash", *command]
    ended = subprocess.run(limited, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1
    *before, last = ended.stderr.splitlines()
    assert last == "Error: [Errno 24] Too many open files"
    assert before in ([], ["deallocating an open event loop"])  # uvloop's own


PROBE = """
import asyncio, sys
from pathlib import Path
import grpc
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceStub
from mlrs_server.config import ServerConfig
from mlrs_server.daemon import running_daemon

async def main():
    config = ServerConfig(listen="127.0.0.1:0", data_dir=Path(sys.argv[1]), model=sys.argv[2])
    async with running_daemon(config) as address, grpc.aio.insecure_channel(address) as channel:
        stub = AdvisorServiceStub(channel)
        await stub.OpenRun(pb.OpenRunRequest(run_id="a"))
        await stub.Advise(pb.AdviseRequest(run_id="a", loss=2.0))
        await ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
        await stub.OpenRun(pb.OpenRunRequest(run_id="a", resume_from=0))

asyncio.run(main())
heavy = ("torch", "mlrs_core.models.official", "mlrs_train", "mlrs")
print([name for name in heavy if name in sys.modules])
"""


def test_serving_does_not_import_torch(tmp_path: Path, model_file: Path) -> None:
    """A daemon that has advised, listed and rewound has loaded neither torch nor the client."""
    command = [sys.executable, "-c", PROBE, str(tmp_path / "d"), str(model_file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"


async def test_a_drain_does_not_wait_for_ever(tmp_path: Path, model_file: Path) -> None:
    """A client that keeps its call open is left behind after the drain's limit at the latest."""
    async with asyncio.timeout(TIMEOUT):
        async with service(tmp_path / "d", model_file, drain_timeout_s=0.1) as (stub, address):
            await create(stub, "a")
            await advised(stub, "a", LOSSES[:4])
            connection = grpc.aio.insecure_channel(address)
            other: Any = AdvisorServiceStub(connection)
            calls: list[Any] = [other.StreamAdvice() for _ in range(3)]
            calls += [other.WatchRun(pb.WatchRunRequest(run_id="a", follow=True)) for _ in range(3)]
            for call in calls[3:]:
                await call.read()
        await connection.close()
    async with service(tmp_path / "d", model_file) as (stub, _):
        assert (await stub.GetRun(pb.GetRunRequest(run_id="a"))).run.durable_step == 3
