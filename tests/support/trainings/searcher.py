"""A training process that searches for its learning rates, for tests under fire. Without NumPy: starts fast.

    python -m tests.support.trainings.searcher NAME JOURNAL ADDRESS

It makes one run after the other, each with a search and a few steps, and writes down what it sees. Killed and
started again it goes on where it was, as its journal and the daemon know. On SIGTERM it ends the run that it
is in; it makes at least one.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mlrs

T = TypeVar("T")
CONFIG: Any = {"horizon": 400, "optimizer": "sgd", "fallback": None}
"""The arguments of `Advisor.run`, beside the id."""
START = "fixed-name"
"""What the trials of each run are made from."""
STEPS = 25
"""The steps of a run after its search: some beyond the warmup."""
SIZE = 12
"""The number of weights of `Valley`."""
TRY_AGAIN = (mlrs.UnavailableError, mlrs.errors.DeadlineExceededError)
"""What a training loop that has no time limit of its own passes over."""


def loss_of(step: int) -> float:
    """Return the loss of a step after the search."""
    return 2.0 / (1.0 + 0.1 * step)


class Valley:
    """A `TrialLoop`: noisy gradient descent in a quadratic valley, which diverges at high learning rates."""

    def __init__(self, on_update: Callable[[], object] = lambda: None) -> None:
        """Begin far from the minimum; `on_update` is called before each update."""
        self.weights = [1.0 + 0.1 * place for place in range(SIZE)]
        self.restored = 0
        """How often the weights were put back."""
        self._on_update = on_update
        self._saved: list[float] = []

    def save(self) -> None:
        """Save the weights."""
        self._saved = list(self.weights)

    def restore(self) -> None:
        """Put back the weights."""
        self.weights = list(self._saved)
        self.restored += 1

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update with the gradient of a batch that depends on `update` alone."""
        self._on_update()
        loss = self.evaluate()
        for place, weight in enumerate(self.weights):
            noise = (update * 7919 + place * 104_729) % 997 / 997 - 0.5
            self.weights[place] = weight - learning_rate * (_curvature(place) * weight + 0.3 * noise)
        return loss

    def evaluate(self) -> float:
        """Return the loss."""
        return sum(0.5 * _curvature(place) * weight**2 for place, weight in enumerate(self.weights))


def _curvature(place: int) -> float:
    return 6.0 * 0.6**place


class Searcher:
    """Runs, one after the other, each with a search."""

    def __init__(self, name: str, journal: Path, address: str, options: argparse.Namespace) -> None:
        self._name = name
        self._address = address
        self._pause_s: float = options.pause
        self._start: str | None = options.start or None
        self._dies_at: int = options.dies_at
        self._updates = 0
        self._file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lines = journal.read_text(encoding="utf-8").splitlines()
        self._finished = sum(line.startswith("finished ") for line in lines)
        self.stopping = threading.Event()

    def note(self, *words: object) -> None:
        """Write a line, at once, so that a kill loses none."""
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    def train(self) -> None:
        """Make runs until stopped; note what went wrong, if anything did."""
        self.note("ready", os.getpid())
        try:
            with mlrs.connect(self._address, timeout_s=5.0) as advisor:
                for index in itertools.count(self._finished):
                    self._follow(advisor, f"{self._name}/{index}")
                    if self.stopping.is_set():
                        return
        except Exception as error:  # noqa: BLE001  # the test reads it
            self.note("error", repr(error))

    def _follow(self, advisor: mlrs.Advisor, run_id: str) -> None:
        """Search for a run, and train it to its end."""
        loop = Valley(self._update)
        run = advisor.run("task", id=run_id, on_existing="resume", memory=False, **CONFIG)
        self.note("searching", run_id)
        try:
            found = self._insist(lambda: run.search(loop, start=self._start))
        except mlrs.errors.RunFinishedError:  # killed between the end of the run and the note of it
            self.note("finished", run_id)
            return
        if found.learning_rate is None:
            self.note("begun", run_id, run.next_step)
        else:
            self.note("found", run_id, found.learning_rate.hex(), len(found.trials), loop.restored - 1)
        for step in range(run.next_step, STEPS):
            lr = self._insist(lambda step=step: run.next_lr(step, loss_of(step)))  # type: ignore[misc]
            self.note("lr", run_id, step, lr.hex())
        self._insist(run.finish)
        self.note("finished", run_id)

    def _update(self) -> None:
        """Take the time of an update; die where the test wants it."""
        self._updates += 1
        if self._updates == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.stopping.wait(self._pause_s)

    def _insist(self, call: Callable[[], T]) -> T:
        """Make a call again until it works."""
        while True:
            try:
                return call()
            except TRY_AGAIN as error:
                self.note("again", type(error).__name__)
                threading.Event().wait(0.05)  # opening a run fails at once while the daemon is away


def main() -> None:
    """Search and train until SIGTERM."""
    logging.getLogger("mlrs").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("journal", type=Path)
    parser.add_argument("address")
    parser.add_argument(
        "--start", default=START, help="what trials are made from; empty: a new name each time"
    )
    parser.add_argument("--pause", type=float, default=0.002, help="seconds that an update takes")
    parser.add_argument("--dies-at", type=int, default=0, help="the update at which it kills itself")
    options = parser.parse_args()
    searcher = Searcher(options.name, options.journal, options.address, options)
    signal.signal(signal.SIGTERM, lambda *_: searcher.stopping.set())
    searcher.train()


if __name__ == "__main__":
    main()
