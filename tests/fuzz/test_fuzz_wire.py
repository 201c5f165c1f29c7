"""Random bytes and mutated messages at every RPC of a real daemon, over the wire."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

import mlrs
from mlrs_proto import v1 as pb
from tests.fuzz.mutation import extreme, mutated
from tests.support.daemon import Daemon, write_random_model
from tests.support.process import MIB, open_files, resident_bytes
from tests.support.reliability import save
from tests.support.runs import open_run
from tests.support.stubs import ADVISOR, METHODS
from tests.support.trainings.training import Undisturbed
from tests.support.trainings.workload import loss_of, settings_of

WATCH = f"/{ADVISOR.full_name}/WatchRun"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
AT_ONCE = 48
"""Calls under way at a time."""
TIMEOUT_S = 20.0
"""A call that takes longer hangs ..."""
FOLLOW_S = 1.0
"""... but one that follows a run."""
GROWTH = 64 * MIB
"""What the daemon may grow by once it is warm: runs that were created stay."""
DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
"""Outcomes that no input may have."""


class Calls:
    """Starts calls of any RPC with any bytes; their outcomes are counted."""

    def __init__(self, address: str, chance: random.Random) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._chance = chance
        self._messages = {
            f"/{method.containing_service.full_name}/{method.name}": (
                message_factory.GetMessageClass(method.input_type),
                method.client_streaming,
                method.server_streaming,
            )
            for method in METHODS.values()
        }
        self.paths = [*self._messages, HEALTH, REFLECTION, f"/{ADVISOR.full_name}/Nonsense"]
        self.outcomes: Counter[str] = Counter()
        self.inputs = 0

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def inputs_for(self, path: str) -> list[bytes]:
        """Return what to send: noise, a message of extreme values, or one with some bytes changed."""
        kind, many, _ = self._messages.get(path, (pb.OpenRunRequest, False, False))
        count = self._chance.randint(1, 4) if many else 1
        return [self._input(kind) for _ in range(count)]

    def _input(self, kind: Any) -> bytes:
        if self._chance.random() < 0.1:
            return self._chance.randbytes(self._chance.randint(0, 200))
        data: bytes = extreme(kind(), self._chance).SerializeToString()
        return data if self._chance.random() < 0.4 else mutated(data, self._chance)

    def start(self, path: str) -> Callable[[], None]:
        """Start a call; return what waits for its end."""
        _, many_in, many_out = self._messages.get(path, (None, path == REFLECTION, path == REFLECTION))
        data = self.inputs_for(path)
        self.inputs += len(data)
        sent: Any = iter(data) if many_in else data[0]
        if many_out:
            multi: Any = self._channel.stream_stream if many_in else self._channel.unary_stream
            stream = multi(path)(sent, timeout=FOLLOW_S if path == WATCH else TIMEOUT_S)
            return lambda: self._end(path, data, lambda: self._drain(stream))
        single: Any = self._channel.stream_unary if many_in else self._channel.unary_unary
        future = single(path).future(sent, timeout=TIMEOUT_S)
        return lambda: self._end(path, data, future.result)

    def _drain(self, stream: Any) -> None:
        """Read a stream; leave one that would follow a run for ever."""
        for count, _ in enumerate(stream):
            if count > 3:
                stream.cancel()
                return

    def _end(self, path: str, data: list[bytes], wait: Callable[[], object]) -> None:
        try:
            wait()
        except grpc.RpcError as error:
            self.outcomes[error.code().name] += 1
            reason = dict(error.trailing_metadata() or ()).get("mlrs-reason")
            if problem := self._problem(path, error.code(), error.details() or "", reason):
                raise AssertionError(f"{path}, {data}: {problem}: {error.details()}") from error
        else:
            self.outcomes["OK"] += 1

    def _problem(self, path: str, code: grpc.StatusCode, details: str, reason: str | None) -> str:
        """Return what is wrong with an outcome; "" if nothing is."""
        if path not in self._messages:  # other people's services: gRPC has no better word for no message
            return code.name if code in DEFECTS and "DecodeError" not in details else ""
        if path == WATCH and code in {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}:
            return ""  # it followed a run
        return code.name if code in DEFECTS else "" if reason else "no reason"


def followed(advisor: mlrs.Advisor) -> Iterator[str]:
    """Yield the learning rates of a run that goes on meanwhile."""
    run = open_run(advisor, "bystander", **settings_of("bystander"))
    for step in range(60):
        yield run.next_lr(step, loss_of("bystander", step)).hex()


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(1_500, id="some"),
        pytest.param(60_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_no_bytes_trouble_the_daemon(tmp_path: Path, calls: int) -> None:
    """Every RPC answers every input, or refuses it with a reason; no memory stays, no other run notices."""
    began = time.monotonic()
    model = write_random_model(tmp_path / "model.safetensors")
    chance = random.Random(os.environ.get("MLRS_FUZZ_SEED", "wire"))  # noqa: S311  # a test's dice
    arguments = ("--model", str(model), "--log-level", "error", "--idle-after-s", "5")
    with (
        Daemon(tmp_path / "data", *arguments) as daemon,
        mlrs.connect(daemon.address, timeout_s=20) as advisor,
    ):
        bystander, lrs = followed(advisor), []
        fuzz = Calls(daemon.address, chance)
        under_way: list[Callable[[], None]] = []
        warm = files = 0
        for number in range(calls):
            under_way.append(fuzz.start(fuzz.paths[number % len(fuzz.paths)]))
            if len(under_way) >= AT_ONCE:
                under_way.pop(0)()
            if number % (calls // 55) == 0:
                lrs += [lr for lr in [next(bystander, None)] if lr]
            if number == calls // 4:
                warm, files = resident_bytes(daemon.pid), open_files(daemon.pid)
        for end in under_way:
            end()
        fuzz.close()
        lrs += list(bystander)
        grown = resident_bytes(daemon.pid) - warm
        more_files = open_files(daemon.pid) - files
        assert daemon.stop() == 0
        assert "internal_error" not in daemon.log.read_text(encoding="utf-8")
    assert lrs == list(Undisturbed(model).lrs("bystander")[:60])
    assert len(lrs) > 20
    assert grown < GROWTH
    assert more_files < 5
    assert fuzz.outcomes["OK"] > calls // 50
    if calls > 10_000:
        save(
            "fuzz_wire",
            "pytest -m slow tests/fuzz",
            began,
            time.monotonic(),
            inputs=fuzz.inputs,
            outcomes=dict(fuzz.outcomes.most_common()),
            crashes=0,
            hangs=0,
            memory_growth_mib=round(grown / MIB, 1),
        )
