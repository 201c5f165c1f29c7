"""The system's clock set back and forward under a daemon and a client: nothing changes."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

import mlrs
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.auth.roles import Role
from mlrs_server.auth.token_store import LOOK_S
from mlrs_server.auth.tokens import TokenFile
from tests.support.daemon import Daemon, write_random_model
from tests.support.reliability import save
from tests.support.runs import open_run
from tests.support.trainings.training import Training, Undisturbed, examine
from tests.support.trainings.workload import loss_of, settings_of

CLOCKS = re.compile(r"\btime\.(time|time_ns|localtime|gmtime)\b|datetime\.now|utcnow|from time import")
SOURCE = Path(__file__).parents[2] / "support" / "wall_clock.c"
DAY = 86_400
JUMPS = (0, 400 * DAY, -400 * DAY, 3, -3, 3650 * DAY, 0)
"""What the clock says, against the truth, in seconds, one after the other."""


class WallClock:
    """A wall clock that can be set; the monotonic one goes on, as when an administrator sets the time.

    libfaketime is no help here: it disturbs waits that go by the monotonic clock, too.
    """

    def __init__(self, folder: Path) -> None:
        library = folder / "wall_clock.so"
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler")
        subprocess.run(
            [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True
        )
        self._file = folder / "clock"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        """Set it; in one step, so that nobody reads half of it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s}\n", encoding="ascii")
        new.replace(self._file)


def test_the_client_reads_no_clock_that_can_be_set() -> None:
    """Deadlines of the client go by the monotonic clock: its sources know no other, but for two.

    Whether a run is one that a lost call has just created is decided by the time; a clock that is wrong there
    costs a clear answer, and changes no advice. Writers stamp what they write into logs of experiments.
    """
    sources = Path(mlrs.__file__).parent.rglob("*.py")
    read = [source.name for source in sources if CLOCKS.search(source.read_text(encoding="utf-8"))]
    assert read == ["writers.py"]


@pytest.mark.parametrize(
    "rounds", [pytest.param(1, id="once"), pytest.param(10, id="often", marks=[pytest.mark.slow])]
)
@pytest.mark.timeout(300)
def test_a_clock_that_is_set_disturbs_nothing(tmp_path: Path, rounds: int) -> None:
    """Advice, flushes and idle runs go by time that passes, not by what the clock says."""
    began = time.monotonic()
    model = write_random_model(tmp_path / "model.safetensors")
    undisturbed = Undisturbed(model)
    clock = WallClock(tmp_path)
    arguments = ("--model", str(model), "--idle-after-s", "0.5")
    with (
        Daemon(tmp_path / "data", *arguments, environment=clock.environment) as daemon,
        mlrs.connect(daemon.address, timeout_s=20) as advisor,
        Training("jumping", tmp_path, [daemon.address] * 2, environment=clock.environment) as training,
    ):
        stub = AdvisorServiceStub(grpc.insecure_channel(daemon.address))
        run = open_run(advisor, "steady", **settings_of("steady"))
        lrs: list[str] = []
        seen: list[float] = []
        for jump in JUMPS * rounds:
            clock.set(jump)
            some = range(len(lrs), min(len(lrs) + 5, 40))
            lrs.extend(run.next_lr(step, loss_of("steady", step)).hex() for step in some)
            _wait_until_durable(stub, "steady", len(lrs) - 1)
            time.sleep(0.6)  # makes the run idle: its handle is stale, and the client opens it again
            seen.append(open_run(advisor, f"jump-{len(seen)}").next_step)
        years = [info.create_time.year for info in advisor.runs(prefix="jump-")]
        training.drain()
        found = examine([training], undisturbed, daemon.address)
    assert tuple(lrs) == undisturbed.lrs("steady")[: len(lrs)]
    assert found.wrong == []
    assert found.late_s < 1.0
    assert max(years) - min(years) >= 10  # or the clock was never set
    if rounds > 1:
        save(
            "clocks",
            "pytest -m slow tests/e2e/failures/test_clocks.py",
            began,
            time.monotonic(),
            jumps=len(JUMPS) * rounds,
            runs=found.runs,
            steps=found.steps + len(lrs),
            wrong_learning_rates=0,
        )


@pytest.mark.timeout(300)
def test_a_token_is_as_good_as_the_clock_says_now(tmp_path: Path) -> None:
    """A token is refused while the clock is past its expiry, and good again once the clock is set back."""
    clock = WallClock(tmp_path)
    text, _ = TokenFile(tmp_path / "data" / "tokens.json").create(
        tenant="", role=Role.ADVISE, lifetime_s=100 * DAY
    )
    with (
        Daemon(tmp_path / "data", environment=clock.environment) as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = AdvisorServiceStub(channel)

        def answer() -> grpc.StatusCode:
            try:
                stub.ListRuns(
                    pb.ListRunsRequest(), timeout=20, metadata=[("authorization", f"Bearer {text}")]
                )
            except grpc.RpcError as error:
                says: Any = error
                return says.code()
            return grpc.StatusCode.OK

        def until(code: grpc.StatusCode) -> None:
            deadline = time.monotonic() + 60
            while (found := answer()) != code:
                assert time.monotonic() < deadline, found
                time.sleep(0.05)

        until(grpc.StatusCode.OK)
        clock.set(400 * DAY)
        until(grpc.StatusCode.UNAUTHENTICATED)
        time.sleep(2 * LOOK_S)  # the daemon looks at the clock by itself, too
        clock.set(0)
        until(grpc.StatusCode.OK)


def _wait_until_durable(stub: AdvisorServiceStub, run_id: str, step: int) -> None:
    """Wait until the newest step is stored by the daemon's own timer; most calls would store it first."""
    request = pb.AdviseRequest(run_id=run_id, step=step, loss=loss_of(run_id, step))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = stub.Advise(request, timeout=10)
        if answer.HasField("durable_step") and answer.durable_step >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"step {step} is not stored after 10 s")
