"""How late the daemon's event loop is while runs are replayed and models are listed, against one left alone.

One daemon replays: runs of the paper's network are rewound, those in meta mode are, too, and models are
listed. Another, beside it, is asked for nothing but what both are: the advice of one run. So what the machine
does to both at that time is in both.

    python -m performance.daemon.loop_lag [--quick] [--json FILE]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceStub
from performance.report import results
from performance.shared import servers
from performance.shared.in_process import PAPER
from performance.shared.messages import losses_of
from performance.shared.streams import channel_to

STEPS = 40_000
"""The steps of a run that is replayed."""
SECONDS = 20.0
"""How long each kind of work is measured."""
PAUSE_S = 0.005
"""The pause between two observations of the measured run."""


class Lagging:
    """A daemon that notes how late its loop is."""

    def __init__(self, process: subprocess.Popen[str], address: str, file: Path) -> None:
        self._process, self._file = process, file
        self.channel = channel_to(address)
        self.stub: Any = AdvisorServiceStub(self.channel)
        self.models: Any = ModelServiceStub(self.channel)

    def lags(self) -> npt.NDArray[np.float64]:
        """Stop it; return when its loop came round and how late that was, (n, 2) seconds."""
        servers.stop(self._process)
        return np.fromfile(self._file).reshape(-1, 2)

    async def observe(self, run_id: str, seconds: float) -> None:
        """Ask for advice about a run, again and again."""
        request = pb.OpenRunRequest(run_id=run_id, config=pb.RunConfig(num_classes=10))
        step = (await self.stub.OpenRun(request)).run.next_step
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await self.stub.Advise(pb.AdviseRequest(run_id=run_id, step=step, loss=2.0))
            step += 1
            await asyncio.sleep(PAUSE_S)

    async def fill(self, run_id: str, steps: int, config: pb.RunConfig) -> None:
        """Have a run of so many steps."""
        request = pb.OpenRunRequest(run_id=run_id, config=config)
        handle = (await self.stub.OpenRun(request)).run_handle
        stream = self.stub.StreamAdvice()
        losses = np.resize(losses_of(1).ravel(), steps)
        for first in range(0, steps, 8192):
            some = range(first, min(first + 8192, steps))
            await stream.write(
                pb.StreamAdviceRequest(
                    observations=pb.Observations(
                        run_handles=[handle] * len(some), steps=some, losses=losses[some]
                    )
                )
            )
            await stream.read()
        await stream.done_writing()
        await stream.read()

    async def rewind(self, run_id: str, step: int, config: pb.RunConfig) -> None:
        """Have a run put back to before a step, which replays all steps before."""
        request = pb.OpenRunRequest(run_id=run_id, config=config, resume_from=step)
        await self.stub.OpenRun(request)


@contextmanager
def lagging() -> Iterator[Lagging]:
    """Run a daemon that notes how late its loop is."""
    with tempfile.TemporaryDirectory(prefix="mlrs-bench-") as folder:
        home = Path(folder)
        script = Path(__file__).with_name("lagging_daemon.py")
        command = [sys.executable, str(script), str(home / "data"), str(home / "lags")]
        with (
            (home / "log").open("w", encoding="utf-8") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                yield Lagging(process, servers.address_of(process, home / "log"), home / "lags")
            finally:
                servers.stop(process)


async def _busy(
    daemon: Lagging, alone: Lagging, seconds: float, steps: int
) -> dict[str, tuple[float, float]]:
    """Have one daemon do each kind of work, and both be asked meanwhile; return when each began and ended."""
    plain, meta = pb.RunConfig(model=PAPER), pb.RunConfig(model=PAPER, meta=pb.Meta())
    left = {"run": steps, "meta": steps}
    await daemon.fill("run", steps, plain)
    await daemon.fill("meta", steps, meta)

    async def rewound(run_id: str, config: pb.RunConfig) -> None:
        left[run_id] -= 1
        await daemon.rewind(run_id, left[run_id], config)

    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "replays": lambda: rewound("run", plain),
        "replays in meta mode": lambda: rewound("meta", meta),
        "models listed": lambda: daemon.models.ListModels(pb.ListModelsRequest()),
    }
    windows = {}
    for name, work in kinds.items():
        observing = asyncio.gather(daemon.observe("asked", seconds), alone.observe("asked", seconds))
        await asyncio.sleep(0.5)  # both runs are open
        began = time.monotonic()
        while not observing.done():
            await work()
        windows[name] = began, time.monotonic()
        await observing
    for one in (daemon, alone):
        await one.channel.close()
    return windows


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the lags under each kind of work, and their ratios to those of the daemon left alone."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))

        async def start() -> tuple[Lagging, Lagging]:
            return stack.enter_context(lagging()), stack.enter_context(lagging())

        daemon, alone = runner.run(start())
        windows = runner.run(_busy(daemon, alone, 3.0 if quick else SECONDS, STEPS))
        lags = {"daemon": daemon.lags(), "alone": alone.lags()}
    return {name: _figures(lags, *window) for name, window in windows.items()}


def _figures(lags: dict[str, npt.NDArray[np.float64]], began: float, end: float) -> dict[str, Any]:
    """Return the lags between two times, in seconds, and what they are to those of the daemon left alone."""
    figures: dict[str, Any] = {}
    for name, some in lags.items():
        late = some[(some[:, 0] >= began) & (some[:, 0] < end), 1]
        figures[name] = {"p99_s": float(np.percentile(late, 99)), "worst_s": float(late.max())}
    for level in ("p99", "worst"):
        figures[f"{level}_ratio"] = figures["daemon"][f"{level}_s"] / figures["alone"][f"{level}_s"]
    return figures


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
