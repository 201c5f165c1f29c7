"""Clients that take without giving: slow readers, idle connections, floods of streams, huge messages.

The daemon's memory stays bounded, and a training loop beside them goes on.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from tests.support.bystander import Bystander
from tests.support.daemon import Daemon, write_random_model
from tests.support.process import MIB, open_files, resident_bytes
from tests.support.proxy import PREFACE
from tests.support.reliability import save

STEPS = 150
"""Steps of the bystander that a figure is made of."""
some_or_many = pytest.mark.parametrize(
    "many",
    [
        pytest.param(False, id="some"),
        pytest.param(True, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)


@dataclass
class Scene:
    """A daemon, and a training loop that has nothing to do with what happens to it."""

    daemon: Daemon
    bystander: Bystander

    def abused(
        self, name: str, *, many: bool, most_mib: float, abuse: Callable[[ExitStack], dict[str, int]]
    ) -> None:
        """Measure the daemon and the bystander before and while it is abused; save what the long test saw."""
        began = time.monotonic()
        self.bystander.wait_for_steps(STEPS // 3)  # warm
        before, (_, calm_s) = resident_bytes(self.daemon.pid), self.bystander.wait_for_steps(STEPS)
        with ExitStack() as stack:
            figures = abuse(stack)
            _, p99_s = self.bystander.wait_for_steps(STEPS)
            grown_mib = (resident_bytes(self.daemon.pid) - before) / MIB
        self.bystander.wait_for_steps(STEPS // 3)  # it lives, and so does the daemon
        assert grown_mib < most_mib
        if many:
            save(
                f"abuse_{name}",
                "pytest -m slow tests/e2e/failures/test_abuse.py",
                began,
                time.monotonic(),
                **figures,
                memory_growth_mib=round(grown_mib, 1),
                bystander_p99_ms=round(1000 * p99_s, 2),
                bystander_p99_undisturbed_ms=round(1000 * calm_s, 2),
                bystander_p99_ratio=round(p99_s / calm_s, 2),
            )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A daemon as shipped: memory that another test gave back would hide what this one takes."""
    model = write_random_model(tmp_path / "model.safetensors")
    with Daemon(tmp_path / "data", "--model", str(model)) as daemon, Bystander(daemon.address) as bystander:
        yield Scene(daemon, bystander)


def _message(stub: AdvisorServiceStub, run_id: str, entries: int) -> pb.StreamAdviceRequest:
    """Return a message of the first step of a run, so many times: each is answered."""
    handle = stub.OpenRun(pb.OpenRunRequest(run_id=run_id), timeout=20).run_handle
    return pb.StreamAdviceRequest(
        observations=pb.Observations(
            run_handles=[handle] * entries, steps=[0] * entries, losses=[1.0] * entries
        )
    )


@some_or_many
def test_slow_readers(scene: Scene, many: bool) -> None:  # noqa: FBT001  # pytest calls it
    """Streams that send without reading fill a window each, and then wait: answers are not piled up."""
    streams, entries = (60, 4096) if many else (6, 4096)

    def abuse(stack: ExitStack) -> dict[str, int]:
        stopped = threading.Event()
        for number in range(streams):
            channel = grpc.insecure_channel(scene.daemon.address, [("grpc.use_local_subchannel_pool", 1)])
            stack.callback(channel.close)
            stub = AdvisorServiceStub(channel)
            message = _message(stub, f"slow-{number}", entries)

            def requests(message: pb.StreamAdviceRequest = message) -> Iterator[pb.StreamAdviceRequest]:
                while not stopped.is_set():
                    yield message

            stack.callback(stub.StreamAdvice(requests()).cancel)
        stack.callback(stopped.set)
        time.sleep(2.0)  # as long as it takes to fill windows that are not there
        return {"streams": streams, "entries_a_message": entries}

    scene.abused("slow_readers", many=many, most_mib=5 * streams + 40, abuse=abuse)


@some_or_many
def test_half_open_connections(scene: Scene, many: bool) -> None:  # noqa: FBT001  # pytest calls it
    """Connections that never become HTTP/2, or never call, cost some kilobytes and no one's time."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500
    count = min(10_000 if many else 400, allowed)
    host, _, port = scene.daemon.address.rpartition(":")
    files = open_files(scene.daemon.pid)

    def abuse(stack: ExitStack) -> dict[str, int]:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            if number % 2:
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[:PREFACE])
        return {"connections": count}

    scene.abused("half_open", many=many, most_mib=count * 0.06 + 40, abuse=abuse)
    deadline = time.monotonic() + 60
    while open_files(scene.daemon.pid) > files + 10:
        assert time.monotonic() < deadline, "connections that were closed are still open at the daemon"
        time.sleep(0.1)


@some_or_many
def test_a_flood_of_streams(scene: Scene, many: bool) -> None:  # noqa: FBT001  # pytest calls it
    """A connection that opens streams without end gets as many as one may have; others wait on its side."""
    streams = 20_000 if many else 1_500

    async def flood(started: threading.Event, stopped: asyncio.Event) -> None:
        async with grpc.aio.insecure_channel(scene.daemon.address) as channel:
            stub = AdvisorServiceStub(channel)
            calls = [stub.StreamAdvice() for _ in range(streams)]
            await asyncio.sleep(1.0)
            started.set()
            await stopped.wait()
            for call in calls:
                call.cancel()

    def abuse(stack: ExitStack) -> dict[str, int]:
        started, loop, stopped = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(flood(started, stopped)))
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(loop.call_soon_threadsafe, stopped.set)
        assert started.wait(120)
        return {"streams": streams}

    scene.abused("streams", many=many, most_mib=100, abuse=abuse)


@some_or_many
def test_oversize_messages(scene: Scene, many: bool) -> None:  # noqa: FBT001  # pytest calls it
    """A message beyond the limit is refused, even where it is small until it is unpacked; gradients, too.

    Each of gRPC's threads that has unpacked one may keep the memory for the next; these are few, and the
    messages many.
    """
    size = 64 * MIB

    def abuse(stack: ExitStack) -> dict[str, int]:
        options = [("grpc.max_send_message_length", -1)]
        count = 30 if many else 4
        refused = 0
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            channel = grpc.insecure_channel(scene.daemon.address, options, compression)
            stack.callback(channel.close)
            call = channel.unary_unary("/mlrs.v1.AdvisorService/OpenRun")
            send = channel.stream_unary("/mlrs.v1.AdvisorService/AdaptGradients")
            for oversize in (call, lambda message, timeout, send=send: send(iter([message]), timeout)):
                for _ in range(count):
                    with pytest.raises(grpc.RpcError) as caught:
                        oversize(bytes(size), timeout=60)
                    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value
                    refused += 1
        return {"messages": refused, "mib_each": size // MIB}

    scene.abused("oversize", many=many, most_mib=4 * 64, abuse=abuse)
