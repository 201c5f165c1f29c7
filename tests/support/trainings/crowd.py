"""Many training loops in one process, on asyncio, for tests that go on for long.

    python -m tests.support.trainings.crowd NAME JOURNAL ADDRESS... --loops 500 --pause 2

Each address has an advisor, which its loops share; a loop trains one run after the other. The journal is
that of `trainer.py`. On SIGTERM the loops end the runs that they are in.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from mlrs import aio
from tests.support.runs import opened
from tests.support.trainings.trainer import TRY_AGAIN, Journal
from tests.support.trainings.workload import loss_of, settings_of, steps_of

T = TypeVar("T")


class Crowd:
    """The loops of one process."""

    def __init__(self, journal: Journal, *, timeout_s: float, pause_s: float) -> None:
        self._journal = journal
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self.stopping = asyncio.Event()

    async def train(self, name: str, advisor: aio.Advisor) -> None:
        """Train until stopped; note what went wrong, if anything did."""
        await asyncio.sleep(random.uniform(0.0, self._pause_s))  # noqa: S311  # not all at once
        try:
            for index in itertools.count():
                if self.stopping.is_set():
                    return
                await self._follow(advisor, f"{name}/{index}")
        except Exception as error:  # noqa: BLE001  # the test reads it
            self._journal.note("error", repr(error))

    async def _follow(self, advisor: aio.Advisor, run_id: str) -> None:
        """Train a run to its end."""

        async def attempt() -> aio.Run:
            return await opened(advisor, run_id, fallback=None, **settings_of(run_id))

        run = await self._insist(f"open {run_id}", attempt)
        self._journal.note("open", run_id, run.next_step)
        for step in range(run.next_step, steps_of(run_id)):
            pending = run.observe(step, loss_of(run_id, step))
            if not self.stopping.is_set():
                await asyncio.sleep(self._pause_s)
            advice = await self._insist(f"advice {run_id} {step}", pending.advice)
            self._journal.note("lr", run_id, step, advice.learning_rate.hex(), advice.durable_step)
        await self._insist(f"finish {run_id}", run.finish)
        run.detach()
        self._journal.note("finished", run_id)

    async def _insist(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call again until it works."""
        while True:
            began = self._journal.begin()
            try:
                return await call()
            except TRY_AGAIN as error:
                self._journal.note("again", what, repr(str(error)), type(error).__name__)
                await asyncio.sleep(0.5)
            finally:
                self._journal.outlived(what, self._timeout_s, began)


async def run(options: argparse.Namespace) -> None:
    """Run the loops until SIGTERM."""
    journal = Journal(options.journal)
    crowd = Crowd(journal, timeout_s=options.timeout, pause_s=options.pause)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, crowd.stopping.set)
    journal.note("ready", os.getpid())
    advisors = [aio.connect(address, timeout_s=options.timeout) for address in options.addresses]
    await asyncio.gather(
        *(
            crowd.train(f"{options.name}-{index}", advisors[index % len(advisors)])
            for index in range(options.loops)
        )
    )
    await asyncio.gather(*(advisor.close() for advisor in advisors))


def main() -> None:
    """Read the command line and run."""
    logging.getLogger("mlrs").setLevel(logging.ERROR)  # losses that are not finite are meant here
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("journal", type=Path)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--pause", type=float, default=0.005)
    parser.add_argument("--loops", type=int, default=1)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
