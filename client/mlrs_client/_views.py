"""What a run and a pending advice show of themselves, in both flavours of the client."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque

from mlrs_client import _arguments as check
from mlrs_client._entries import Entry, Reported
from mlrs_client._exceptions import ClosedError
from mlrs_client._ledger import Ledger
from mlrs_client._types import Advice, AdviceReason, RunConfig
from mlrs_client._updates import Update
from mlrs_client.adapters import RunState


class RunView:
    """The attributes of a run."""

    def __init__(self, ledger: Ledger[Entry]) -> None:
        self._ledger = ledger
        self._detached = False
        self._lag = Lag()

    @property
    def id(self) -> str:
        """The run's id: the one that was given, or the task's name with one that the client made."""
        return self._ledger.run_ids[0]

    @property
    def task(self) -> str:
        """What is trained."""
        return self._ledger.start.task

    @property
    def is_open(self) -> bool:
        """Whether the daemon has opened the run: it does so when the run's first step is known."""
        return self._ledger.is_open

    @property
    def config(self) -> RunConfig:
        """The config as the daemon resolved it. Opens the run."""
        return self._opened().config

    @property
    def created(self) -> bool:
        """Whether opening the run created it; if not, it went on with one. Opens the run."""
        return self._opened().created

    @property
    def resume_step(self) -> int:
        """The step to observe next. Opens the run."""
        return self._opened().next_step

    def state(self) -> RunState:
        """Return where the run is, for a checkpoint: to be taken between two steps.

        Opens the run only where its next step cannot be known without the daemon.
        """
        ledger = self._ledger
        if ledger.first_step is None and ledger.start.way(None).mode == "open":
            ledger = self._opened()
        return RunState(self.id, ledger.next_step, ledger.standby.last_lr)

    def newest_lr(self, before: int) -> float | None:
        """Return the newest learning rate of the steps before one that were observed with `lagged`.

        For adapters that learn a loss only after they need the learning rate. Does not wait.

        Returns:
            The learning rate; `None`: none of these steps has one yet.

        Raises:
            MlrsError: the daemon refused one of these steps; the error says why.
        """
        return self._lag.newest(check.step(before, "before"))

    @property
    def rank(self) -> int | None:
        """Which of the run's ranks this process is; `None`: it has one."""
        return self._ledger.rank

    @property
    def durable_step(self) -> int:
        """Observations up to and including this step survive a crash of the daemon; -1: none yet."""
        return self._ledger.backlog.durable_step

    @property
    def fallback_steps(self) -> int:
        """How many steps the fallback has answered, as the daemon was out of reach."""
        return self._ledger.standby.steps

    def __repr__(self) -> str:
        where = f"next step {self._ledger.next_step}" if self._ledger.is_open else "not open yet"
        return f"<{type(self).__name__} {self.id!r}: {where}, {self._ledger.config}>"

    def _opened(self) -> Ledger[Entry]:
        """Return the ledger of the run, which is open."""
        raise NotImplementedError

    def _observed(self, loss: object, samples: object) -> float | Reported:
        """Return a loss, checked; of a rank, with the samples that it is the mean of."""
        checked, count = check.loss(loss), check.samples(samples)
        return checked if self._ledger.rank is None else Reported(checked, count)

    def _check_attached(self) -> None:
        if self._detached:
            raise ClosedError(
                f"run {self.id!r} was left; open it again with advisor.run({self.task!r}, id={self.id!r},"
                " on_existing='resume')"
            )


class Lag:
    """The advice of a loop that never waits: at each step, that for the step before, if it is here.

    May be shared by threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[Entry] = deque()
        self._newest: float | None = None
        self._since: float | None = None  # when it began to wait ...
        self._oldest = -1  # ... for the answer to this step

    def newest(self, before: int) -> float | None:
        """Return the newest learning rate of the steps before one; `None`: there is none yet.

        Raises:
            MlrsError: the daemon refused one of these steps; the error says why.
        """
        with self._lock:
            while self._sent and self._sent[0].done and self._sent[0].step < before:
                entry = self._sent.popleft()
                if entry.error is not None:  # those that fell with it are told with it
                    self._sent = deque(other for other in self._sent if other.error is None)
                self._newest = entry.lr()
            return self._newest

    def add(self, entry: Entry) -> None:
        """Add a step that was sent; it takes the place of what was sent of it, and of later ones, before."""
        with self._lock:
            while self._sent and self._sent[-1].step >= entry.step:
                self._sent.pop()
            self._sent.append(entry)

    def late_s(self) -> float:
        """Return for how long the step before the newest has had no answer; 0: it has one."""
        with self._lock:
            if len(self._sent) <= 1:
                self._since = None
                return 0.0
            since = self._since
            if since is None or self._oldest != self._sent[0].step:
                self._oldest, self._since = self._sent[0].step, time.monotonic()
                return 0.0
            return time.monotonic() - since


class PendingView:
    """The attributes of an observation that was sent."""

    def __init__(self, entry: Entry, *, replayed: bool, lagged_lr: float | None = None) -> None:
        self._entry = entry
        self._replayed = replayed
        self._lagged_lr = lagged_lr

    @property
    def step(self) -> int:
        """The step that was observed."""
        return self._entry.step

    @property
    def loss(self) -> float:
        """The loss that was observed."""
        return self._entry.loss

    def done(self) -> bool:
        """Return whether the advice, or the refusal, is here."""
        return self._entry.done

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of step {self.step}, {'done' if self.done() else 'waiting'}>"

    def _result(self) -> Advice:
        advice = self._entry.result()
        return dataclasses.replace(advice, reason=AdviceReason.REPLAYED) if self._replayed else advice


class PendingUpdateView:
    """The attributes of a meta update that was sent."""

    def __init__(self, update: Update) -> None:
        self._update = update

    @property
    def step(self) -> int:
        """The step that it is about."""
        return self._update.step

    def done(self) -> bool:
        """Return whether the answer, or the refusal, is here."""
        return self._update.done

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of step {self.step}, {'done' if self.done() else 'waiting'}>"
