"""What the client knows of one run: its next step, and the observations it may have to send again.

A ledger knows no stream and no thread; its owner sees to it that one caller is in it at a time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from mlrs_client._calls import OpenedRun
from mlrs_client._exceptions import MlrsError, RecordGapError, StaleStepError, StepAheadError
from mlrs_client._types import Advice, AdviceReason, RunConfig

MAX_KEPT = 65_536
"""Observations kept per run. Beyond it the oldest are dropped, and a daemon that crashes before it
stored them cannot be caught up: hours of a daemon's absence, at a usual step."""


@dataclass(slots=True, eq=False)
class Entry:
    """One observation, and what came of it."""

    step: int
    """Its step."""
    loss: float
    """Its loss."""
    learning_rate: float | None = None
    """The answer, once there is one ..."""
    reason: AdviceReason = AdviceReason.FRESH
    """... why it is what it is ..."""
    durable_step: int = -1
    """... and how far the run was durable then."""
    error: MlrsError | None = None
    """Why there will be no answer."""

    @property
    def done(self) -> bool:
        """Whether there is an answer, or never will be."""
        return self.learning_rate is not None or self.error is not None

    def lr(self) -> float:
        """Return the learning rate of an entry that is done.

        Raises:
            MlrsError: there is none; the error says why.
        """
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.learning_rate is None:
            raise AssertionError("asked before it was done")
        return self.learning_rate

    def result(self) -> Advice:
        """Return the advice of an entry that is done; raises as `lr`."""
        return Advice(self.step, self.lr(), self.reason, self.durable_step)


class Wakeable(Protocol):
    """What the callers who wait for something of a run are waiting on."""

    def notify_all(self) -> None:
        """Let each of them look again."""


class Ledger:
    """The client's record of one run.

    Attributes:
        changed: notified when an answer, or word of the stream, came in.
        run_id: the run's id.
        config: its config, as the daemon resolved it.
        given: the names of the config's fields that the caller gave.
        created: whether opening it created it.
        handle: its name in the streams of one daemon process.
        next_step: the step that the caller may observe next.
        durable_step: observations up to and including this one survive a crash; -1: none yet.
    """

    def __init__(self, opened: OpenedRun, changed: Wakeable, given: frozenset[str] = frozenset()) -> None:
        self.changed = changed
        self.run_id = opened.info.id
        self.config: RunConfig = opened.info.config
        self.given = given
        self.created = opened.created
        self.handle = opened.handle
        self.next_step = opened.info.next_step
        self.durable_step = opened.info.durable_step
        self._kept: deque[Entry] = deque()  # without gaps, the last one at next_step - 1
        self._unanswered: dict[int, Entry] = {}  # in the order sent

    def observe(self, step: int, loss: float) -> tuple[Entry, bool]:
        """Enter an observation.

        Returns:
            The entry, and whether it has to be sent: not if it was entered before and is kept.

        Raises:
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed before, with another loss.
        """
        if step > self.next_step:
            raise StepAheadError(
                f"run {self.run_id!r}: step {step} is ahead; the next step is {self.next_step}, and steps"
                " have no gaps",
                expected_step=self.next_step,
            )
        if step < self.next_step and (entry := self._find(step)):
            if not _same(entry.loss, loss):
                raise StaleStepError(
                    f"run {self.run_id!r}: step {step} was observed with loss {entry.loss!r}, not {loss!r};"
                    f" the next step is {self.next_step}. To go back, open the run with resume_from={step}",
                    expected_step=self.next_step,
                )
            return entry, False
        entry = Entry(step, loss)
        self._unanswered[step] = entry
        if step == self.next_step:
            self._kept.append(entry)
            self.next_step += 1
            if len(self._kept) > MAX_KEPT:
                self._kept.popleft()
        return entry, True

    def answer(self, entry: Entry, learning_rate: float, reason: AdviceReason, durable_step: int) -> None:
        """Enter the answer to an entry. A second one is the same, and changes nothing."""
        if self._unanswered.get(entry.step) is entry:
            del self._unanswered[entry.step]
        if not entry.done:
            entry.learning_rate, entry.reason, entry.durable_step = learning_rate, reason, durable_step
        self.durable_step = max(self.durable_step, durable_step)
        while self._kept and self._kept[0].step <= self.durable_step and self._kept[0].done:
            self._kept.popleft()

    def refuse(self, entry: Entry, error: MlrsError) -> None:
        """Enter that an entry was refused: its step comes next again, and later ones fall with it."""
        if self._unanswered.get(entry.step) is not entry:
            return
        self._fail(entry, error)
        if not self._kept or not self._kept[0].step <= entry.step < self.next_step:
            return
        while self._kept and self._kept[-1].step >= entry.step:
            self._fail(self._kept.pop(), error)
        self.next_step = entry.step

    def rejoin(self, opened: OpenedRun) -> list[Entry]:
        """Take in what the daemon says after a break.

        Returns:
            The entries to send again, in the order of their steps: those that the daemon lacks, and
            those whose answers were lost.

        Raises:
            RecordGapError: the daemon's record goes beyond the client's, or ends before what the
                client keeps.
        """
        expected = opened.info.next_step
        oldest = self._kept[0].step if self._kept else self.next_step
        if expected > self.next_step:
            raise RecordGapError(
                f"run {self.run_id!r}: the daemon expects step {expected}, this client step"
                f" {self.next_step}: another process has moved the run. Open it again",
                expected_step=expected,
            )
        if expected < oldest:
            raise RecordGapError(
                f"run {self.run_id!r}: the daemon expects step {expected}, and this client keeps losses"
                f" from step {oldest} on only. Go on from a checkpoint of step {expected} or before:"
                " open the run with resume_from= its step",
                expected_step=expected,
            )
        self.handle, self.config = opened.handle, opened.info.config
        self.durable_step = opened.info.durable_step
        again = {entry.step: entry for entry in self._kept if entry.step >= expected}
        self._unanswered = dict(sorted((self._unanswered | again).items()))
        return list(self._unanswered.values())

    def last_unanswered(self) -> Entry | None:
        """Return the last entry that the daemon still has to answer, if any."""
        return next(reversed(self._unanswered.values()), None)

    def has_volatile(self) -> bool:
        """Return whether the client keeps observations that a crash of the daemon would lose."""
        return bool(self._kept)

    def _fail(self, entry: Entry, error: MlrsError) -> None:
        if not entry.done:
            entry.error = error
        self._unanswered.pop(entry.step, None)

    def _find(self, step: int) -> Entry | None:
        if self._kept and step >= self._kept[0].step:
            return self._kept[step - self._kept[0].step]
        return self._unanswered.get(step)


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124 # NaN is the same loss as NaN
