"""A training process for tests under fire: it trains one run after the other until it is stopped.

    python -m tests.support.trainings.trainer NAME JOURNAL ADDRESS...

A thread for each address, each with an advisor of its own, writes down what it sees. Killed and started
again it goes on where it was, as its journal and the daemon know. On SIGTERM it ends the runs that it is in.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mlrs
from tests.support.runs import open_run
from tests.support.trainings.workload import loss_of, settings_of, steps_of

T = TypeVar("T")
TRY_AGAIN = (mlrs.UnavailableError, mlrs.errors.DeadlineExceededError)
"""What a training loop that has no time limit of its own passes over."""


class Journal:
    """The process's notes: a line each, written at once, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        before = path.read_text(encoding="utf-8").splitlines()
        self._finished = [line.split()[1] for line in before if line.startswith("finished ")]
        self._worst_s = 0.0
        self._worst_of_ours_s = 0.0
        self._starved_s = 0.0
        threading.Thread(target=self._feel_the_machine, daemon=True).start()

    def note(self, *words: object) -> None:
        """Write a line."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def finished(self, name: str) -> int:
        """Return how many runs of a name were finished before."""
        return sum(run_id.startswith(f"{name}/") for run_id in self._finished)

    def _feel_the_machine(self) -> None:
        """Add up for how long this process was not let run: such a time is not the client's."""
        nap, tick_s = threading.Event(), 0.01
        while True:
            began = time.monotonic()
            nap.wait(tick_s)
            self._starved_s += max(0.0, time.monotonic() - began - tick_s)

    def begin(self) -> tuple[float, float]:
        """Return the time, and for how long the process was starved so far; see `outlived`."""
        return time.monotonic(), self._starved_s

    def timed(self, what: str, timeout_s: float, call: Callable[[], T]) -> T:
        """Make a call; note by how much it outlived its deadline."""
        began = self.begin()
        try:
            return call()
        finally:
            self.outlived(what, timeout_s, began)

    def outlived(self, what: str, timeout_s: float, began: tuple[float, float]) -> None:
        """Note by how much a call outlived its deadline, if by more than any before.

        Twice: all of it, and without what the process was starved for meanwhile.
        """
        late_s = time.monotonic() - began[0] - timeout_s
        ours_s = late_s - (self._starved_s - began[1])
        if late_s > self._worst_s or ours_s > self._worst_of_ours_s:
            self._worst_s = max(late_s, self._worst_s)
            self._worst_of_ours_s = max(ours_s, self._worst_of_ours_s)
            self.note("late", f"{late_s:.4f}", f"{ours_s:.4f}", what)


class Trainer:
    """One thread: an advisor, and runs one after the other."""

    def __init__(self, name: str, address: str, journal: Journal, options: argparse.Namespace) -> None:
        self.name = name
        self._address = address
        self._journal = journal
        self._timeout_s: float = options.timeout
        self._pause_s: float = options.pause
        self.stopping = threading.Event()

    def train(self) -> None:
        """Train until stopped; note what went wrong, if anything did."""
        try:
            with mlrs.connect(self._address, timeout_s=self._timeout_s) as advisor:
                for index in itertools.count(self._journal.finished(self.name)):
                    if self.stopping.is_set():
                        return
                    self._follow(advisor, f"{self.name}/{index}")
        except Exception as error:  # noqa: BLE001  # the test reads it
            self._journal.note("error", repr(error))

    def _follow(self, advisor: mlrs.Advisor, run_id: str) -> None:
        """Train a run to its end."""
        try:
            run = self._insist(
                f"open {run_id}", lambda: open_run(advisor, run_id, fallback=None, **settings_of(run_id))
            )
        except mlrs.errors.RunFinishedError:  # killed between the end of the run and the note of it
            self._journal.note("finished", run_id)
            return
        with run:
            self._journal.note("open", run_id, run.next_step)
            for step in range(run.next_step, steps_of(run_id)):
                pending = run.observe(step, loss_of(run_id, step))
                self.stopping.wait(self._pause_s)  # the backward pass
                advice = self._insist(f"advice {run_id} {step}", pending.advice)
                self._journal.note("lr", run_id, step, advice.learning_rate.hex(), advice.durable_step)
            self._insist(f"finish {run_id}", run.finish)
        self._journal.note("finished", run_id)

    def _insist(self, what: str, call: Callable[[], T]) -> T:
        """Make a call again until it works."""
        while True:
            try:
                return self._journal.timed(what, self._timeout_s, call)
            except TRY_AGAIN as error:
                self._journal.note("again", what, repr(str(error)), type(error).__name__)
                threading.Event().wait(0.05)  # opening a run fails at once while the daemon is away


def main() -> None:
    """Train in a thread an address until SIGTERM."""
    logging.getLogger("mlrs").setLevel(logging.ERROR)  # losses that are not finite are meant here
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("journal", type=Path)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--pause", type=float, default=0.005)
    options = parser.parse_args()
    journal = Journal(options.journal)
    trainers = [
        Trainer(f"{options.name}-{index}", address, journal, options)
        for index, address in enumerate(options.addresses)
    ]
    signal.signal(signal.SIGTERM, lambda *_: [trainer.stopping.set() for trainer in trainers])
    journal.note("ready", os.getpid())
    threads = [threading.Thread(target=trainer.train) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
