"""The client's state of a run or a sweep: the next step, and what it may have to send again.

A ledger uses no stream and no thread; its owner allows one caller at a time. That caller may be the main
thread, where Ctrl-C can raise between any two lines: users' calls (`observe`, `adapt`, `stand_in`, `cut_off`)
change the ledger in an order that allows to repeat an interrupted call. What may be sent again is in its
`Backlog`, what answers without a daemon in its `Standby`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol

from mlrs.errors import (
    ConfigMismatchError,
    DeadlineExceededError,
    LimitError,
    MlrsError,
    PermissionDeniedError,
    RecordDamagedError,
    RecordGapError,
    RunExistsError,
    RunNotFoundError,
    RunTakenError,
    StaleStepError,
    StepAheadError,
    StoreNewerError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from mlrs.ledger.answers import Advised
from mlrs.ledger.backlog import Backlog, E
from mlrs.ledger.fallback import Fallback
from mlrs.ledger.open_request import Start
from mlrs.ledger.open_result import Opened
from mlrs.ledger.outage import StorageStall
from mlrs.ledger.outcome import Outcome
from mlrs.ledger.remarks import Remarks
from mlrs.ledger.standby import Standby, each_of
from mlrs.ledger.updates import Update
from mlrs.ledger.validations import Validations, check_not_ahead
from mlrs.values.meta_types import Adaptation, MetaOrder
from mlrs.values.signals import Validation
from mlrs.values.types import RunConfig

PERMANENT = (RecordDamagedError, StoreNewerError)
"""Permanent failures: with a fallback, it answers to the end; without one, they are raised."""
REFUSED = (RunTakenError, RunNotFoundError)
"""Failures after which the daemon accepts no observation of this run from this client."""
RANK_TIMEOUT_S = 600.0
"""How long a rank waits for the others, in seconds: the timeout of PyTorch's collectives."""


class Wakeable(Protocol):
    """Wakes the callers that wait for an event of a run."""

    def notify_all(self) -> None:
        """Wake all callers, which then check their condition again."""


class Listening(Protocol):
    """Tells a user's function about the answered observations of a run, in the background."""

    untold: int
    """How many observations were not told."""

    def put(self, run_id: str, entry: Any) -> None:
        """Have an answered observation of a run told; does not wait."""

    def again(self) -> Listening:
        """Return another one of the same function, for a run that continues after this one is closed."""

    def flush(self, timeout_s: float) -> None:
        """Wait until everything so far was told, but no longer than `timeout_s`."""

    def close(self, timeout_s: float) -> None:
        """Flush, and tell nothing more."""


class Ledger(Generic[E]):
    """The client's record of one run, or of the runs of a sweep, which advance together.

    It exists before its runs are open: observations until then wait to be sent.

    Attributes:
        changed: notified when an answer arrives, or a stream changes.
        start: the options of opening the runs.
        run_ids: the runs' ids.
        label: its name in messages.
        entry: makes the entry of a step, from the step and the loss, or losses.
        rank: the rank of this process; `None`: the run has no ranks.
        config: the config of the first run: the requested one, and after opening the daemon's.
        is_open: whether the daemon has opened the runs.
        denied: why the last attempt to open the runs failed, if it did.
        created: whether opening them created each run.
        created_at: when the daemon created the first run, in seconds since the epoch; `None`: not known yet.
        handles: the runs' handles in the streams of one daemon process.
        first_step: the first step that is observed, once it is known.
        next_step: the step to observe next.
        left: whether the caller has left it.
        is_finished: whether the daemon has reported that it is finished.
        backlog: the observations and updates that the daemon may lack.
        standby: answers while no daemon can be reached.
        remarks: the warnings about its observations.
        validations: the validation losses of a run that travel with observations.
        outcome: how good the runs came out, as the caller told when finishing them.
        listener: is told each answered observation; `None`: nobody is.
        told_step: the last step that it was told.
        saved_as: the file with the observations that the daemon lacks; empty: there is none.
        saved_at: the next step when that file was written.
    """

    def __init__(
        self,
        start: Start,
        changed: Wakeable,
        entry: Callable[[int, Any], E],
        fallback: Fallback | None = None,
        rank: int | None = None,
    ) -> None:
        self.changed = changed
        self.start = start
        self.run_ids = start.run_ids
        self.label = _label(start.run_ids)
        self.entry = entry
        self.rank = rank
        self.config: RunConfig = start.configs[0]
        self.is_open = False
        self.denied: MlrsError | None = None
        self.created = False
        self.created_at: float | None = None
        self.handles: list[int] = []
        self.first_step = start.resume_from
        self.next_step = start.resume_from or 0
        self.left = False
        self.is_finished = False
        self.backlog: Backlog[E] = Backlog(len(start.run_ids))
        self.standby = Standby(fallback)
        self.remarks = Remarks(self.label, start.run_ids, start.configs)
        self.validations = Validations()
        self.outcome = Outcome()
        self.listener: Listening | None = None
        self.told_step = -1
        self.saved_as = ""
        self.saved_at = -1
        self._stall = StorageStall(self.label)
        self._told_why = ""  # what the memory decided, as it was announced
        self._late_refusal: MlrsError | None = None  # of a step that the fallback had answered
        self._is_replaced = False  # whether the late refusal is raised at every call
        self._keeps_losses = False  # whether losses are kept though the run is lost
        self._furthest = -1  # the daemon's largest next step when the runs were opened

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(self.run_ids)

    def patience_s(self, timeout_s: float | None) -> float | None:
        """Return the deadline of a call, in seconds; `None`: the advisor's."""
        ranks_s = None if self.rank is None else RANK_TIMEOUT_S
        if timeout_s is not None or self.is_open:
            return ranks_s if timeout_s is None else timeout_s
        return max(self.start.limit_s(self.first_step), ranks_s or 0.0)

    # ---------------------------------------------------------------- observations and updates

    def observe(self, step: int, loss: Any) -> tuple[E, bool]:
        """Enter the observation of a step: its loss, or one loss for each run.

        Returns:
            The entry, and whether it is new and has to be sent.
        """
        self._raise_late_refusal()
        if self.first_step is None:
            self._begin(step)
        if step > self.next_step:
            raise self._ahead(step)
        backlog = self.backlog
        if step < self.next_step and (entry := backlog.find(step)):
            if differs := entry.other(loss):
                raise StaleStepError(
                    f"{self.label}: step {step} was observed with {differs};"
                    f" the next step is {self.next_step}. To go back, open it with resume_from={step}",
                    next_step=self.next_step,
                )
            self.validations.entered(entry)
            return entry, False
        if backlog.is_full and not self.standby.is_lost:
            self._overflow()
        entry = self.entry(step, loss)
        self.validations.join(entry, is_new=step == self.next_step)
        self.remarks.see(entry)
        is_sent = not self.standby.is_lost
        if is_sent:
            backlog.send(entry)
        if step == self.next_step and (is_sent or self._keeps_losses):
            backlog.keep(entry)
        self.next_step = max(self.next_step, step + 1)
        backlog.bound()
        self.validations.entered(entry)
        return entry, True

    def validate(self, step: int, loss: float) -> None:
        """Enter a validation loss, which travels with the first new observation of its step or a later one.

        The newest one counts. It may be ahead of the observations, as those of an adapter whose losses are
        still being read from a device.

        Raises:
            InvalidArgumentError: the step is beyond the next one by more than `AHEAD`.
        """
        if self.is_open or self.first_step is not None:
            check_not_ahead(step, self.next_step)
        self.validations.tell(Validation(step, loss))

    def adapt(
        self, step: int, alignments: Sequence[float], validation_losses: Sequence[float | None]
    ) -> tuple[Update, bool]:
        """Enter the meta update of a step, with one alignment for each run.

        Returns:
            The update, and whether it is new and has to be sent.
        """
        self._raise_late_refusal()
        if self.config.meta is None:
            raise ConfigMismatchError(
                f"{self.label} is not in meta mode, which a run is from its creation on: open a new one with"
                " meta=True",
                field="meta",
            )
        if step >= self.next_step:
            raise StepAheadError(
                f"{self.label}: step {step} was not observed yet; observe it, then adapt to it",
                next_step=self.next_step,
            )
        backlog = self.backlog
        if (update := backlog.updates.find(step)) is not None:
            if not update.has(alignments, validation_losses):
                raise StaleStepError(
                    f"{self.label}: the meta update of step {step} was made of another alignment or"
                    " validation loss; there is one a step",
                    next_step=self.next_step,
                )
            return update, False
        if step >= backlog.durable_step and step < self.next_step - 1 and backlog.has_kept(step + 1):
            raise StaleStepError(
                f"{self.label}: step {step + 1} was observed already, and the meta update of step {step}"
                " belongs before it; adapt to each step before the next is observed",
                next_step=self.next_step,
            )
        update = Update(step, alignments, validation_losses)
        if update.unanswered and not self.standby.is_lost:
            backlog.send_update(update)
        return update, True

    def answer(self, entry: E, columns: Advised, index: int) -> None:
        """Enter the answer to an entry, at an index of columns; a second one changes nothing."""
        self.standby.advised(entry.step, entry.fill(columns, index))
        self.backlog.answered(entry, entry.durable_step(columns, index))
        self._tell(entry)

    def adapted(self, update: Update, index: int, answer: Adaptation) -> None:
        """Enter the answer to the update of one run; a second one changes nothing."""
        update.fill(index, answer)
        self.backlog.updates.answered(update)
        is_used = self.config.meta is not None and self.config.meta.order == MetaOrder.BEFORE_STEP
        if is_used and not update.unanswered:
            advised = each_of(self.standby.last_lr, self.size)
            rates = [
                rate if result is None or result.learning_rate is None else result.learning_rate
                for result, rate in zip(update.results, advised, strict=True)
            ]
            self.standby.advised(update.step, rates[0] if self.size == 1 else rates)

    def refuse(self, entry: E, error: MlrsError) -> None:
        """Enter that an entry was refused: its step is the next one again, and later ones are refused."""
        if not self.backlog.waits(entry) or self._is_lost_by(error):
            return
        is_next_again = entry.step < self.next_step and self.backlog.has_kept(entry.step)
        self.validations.refused(entry)
        for each in self.backlog.withdraw(entry):
            if not each.done:
                each.error = error
            elif each.error is None:
                self._late_refusal = error  # answered by the fallback: raised at the next step
        for update in self.backlog.updates.from_step(entry.step):
            self.refuse_update(update, error)
        if is_next_again:
            self.next_step = entry.step

    def refuse_update(self, update: Update, error: MlrsError) -> None:
        """Enter that an update was refused: the run continues without it."""
        if not self.backlog.updates.has(update):
            return
        if update.done:
            self._late_refusal = error  # as in `refuse`
        else:
            update.error = error
        self.backlog.updates.drop(update)

    def refuse_all(self, error: MlrsError) -> None:
        """Enter that everything unanswered was refused."""
        if self._is_lost_by(error):
            return
        for entry in self.backlog.unanswered():
            self.refuse(entry, error)
        for update in self.backlog.updates.unanswered():
            self.refuse_update(update, error)

    def stored(self, durable_step: int) -> bool:
        """Enter how far a daemon has stored the runs; return whether every step is stored."""
        self.backlog.stored(durable_step)
        return self.backlog.durable_step >= self.next_step - 1

    def store_news(self) -> str | None:
        """Return what to log about whether the daemon stores its answers, each message once."""
        return self._stall.news(self.backlog.durable_step, self.standby.last_step)

    def memory_news(self) -> str:
        """Return what to announce about the memory's decision for a run that was created here, once."""
        recalled = self.config.recalled
        if recalled is None or not self.created or self.size > 1 or recalled.why == self._told_why:
            return ""
        self._told_why = recalled.why
        return str(recalled)

    def end(self, metrics: Sequence[float], *, higher_is_better: bool) -> None:
        """Enter how good the runs came out by the caller's measure: one number for each run, or none."""
        told = self.validations.newest_waiting
        self.outcome = Outcome(
            metrics=tuple(metrics),
            higher_is_better=higher_is_better,
            validation_loss=told.loss if told is not None and math.isfinite(told.loss) else None,
        )

    def unsent(self) -> list[E]:
        """Return the observations that the daemon may lack, in order and without gaps up to the last.

        None for a rank, whose loss alone is no observation of the run.
        """
        return [] if self.rank is not None else self.backlog.tail(self.next_step)

    def drop(self) -> None:
        """Drop all observations and updates."""
        self.backlog.stop_sending()

    def _tell(self, entry: E) -> None:
        """Have an answered observation told, unless its step or a later one was told before."""
        if self.listener is not None and entry.step > self.told_step and entry.done and entry.error is None:
            self.told_step = entry.step
            self.listener.put(self.run_ids[0], entry)

    def _raise_late_refusal(self) -> None:
        if self._late_refusal is not None:
            error = self._late_refusal
            if not self._is_replaced:
                self._late_refusal = None
            raise error.with_traceback(None)

    def _begin(self, step: int) -> None:
        """Enter the first step of the runs; raises `InvalidArgumentError` if they cannot begin there."""
        if not self.is_open:
            self.start.way(step)
            self.validations.begin(step)
            self.next_step = step
        self.first_step = step

    def _ahead(self, step: int) -> MlrsError:
        """Return the error for a step beyond the next one."""
        if self.denied is not None:
            return self.denied.with_traceback(None)
        return StepAheadError(
            f"{self.label}: step {step} is ahead; the next step is {self.next_step}, and steps have no gaps",
            next_step=self.next_step,
        )

    def _overflow(self) -> None:
        waiting = self.backlog.unanswered()
        error = LimitError(
            f"{self.label}: {len(waiting)} steps have no answer, the most that are kept; the"
            f" daemon, at step {waiting[0].step}, has been away for too long. To have its advice"
            " again, go on from a checkpoint of that step or before: open it with resume_from= its step"
        )
        if not self.can_stand_in():
            raise error
        self.lose(error)

    # -------------------------------------------------------------- opening, and joining again

    def open(self, opened: Opened) -> None:
        """Enter the daemon's answer to opening the runs for the first time."""
        if self.standby.outage is not None and self.first_step not in (None, opened.next_step):
            self.lose(
                RunExistsError(
                    f"it is at step {opened.next_step}, and this training began with step {self.first_step},"
                    " while no daemon could be asked"
                )
            )
            return
        self.is_open, self.created, self.denied = True, opened.created, None
        self.created_at = opened.created_at
        self._furthest = opened.furthest_step
        rates = opened.last_learning_rates
        if None not in rates:
            self.standby.last_lr = rates[0] if self.size == 1 else rates
        if self.first_step is None or opened.next_step > self.next_step:
            self.backlog.forget_kept()  # the daemon answers it from its record
            self.next_step = opened.next_step
        elif opened.next_step < self.first_step:
            first, self.next_step = self.first_step, opened.next_step
            self.refuse_all(self._ahead(first))
            self.next_step = opened.next_step
        self.rejoin(opened)

    def rejoin(self, opened: Opened) -> None:
        """Enter the daemon's answer to opening the runs again.

        Queues again, in the order of entering, the entries and updates that the daemon lacks, and those
        whose answers were lost.

        Raises:
            RecordGapError: the daemon's record is longer than the client's, or ends before the oldest step
                that the client keeps.
        """
        expected, furthest = opened.next_step, opened.furthest_step
        if furthest > max(self.next_step, self._furthest) and self.rank is None:  # other ranks may be ahead
            raise RecordGapError(
                f"{self.label}: the daemon expects step {furthest}, this client step"
                f" {self.next_step}: another process has moved it. Open it again",
                next_step=furthest,
            )
        oldest = self.backlog.oldest(self.next_step)
        if expected < oldest:
            gap = RecordGapError(
                f"{self.label}: the daemon expects step {expected}, and this client keeps losses"
                f" from step {oldest} on only. Go on from a checkpoint of step {expected} or before:"
                " open it with resume_from= its step",
                next_step=expected,
            )
            if not self.can_stand_in():
                raise gap
            self.lose(gap)
            return
        self.handles, self.config = opened.handles, opened.config
        self.remarks.resolved([opened.config])
        self.backlog.lacks_from(expected, opened.durable_step)
        if self.standby.outage is not None and (last := self.backlog.last_unanswered()) is not None:
            self.standby.outage.until = last.step

    def turned_away(self, error: MlrsError) -> None:
        """Enter that the runs cannot join a stream."""
        if self.goes_on_alone() and (not self.is_open or isinstance(error, REFUSED)):
            self.lose(error)
            return
        if not self.is_open:
            self.denied = error
        self.refuse_all(error)

    def may_pass(self, error: MlrsError) -> bool:
        """Return whether to try to join again after a temporary failure.

        Yes while training continues with the fallback, also after a failure of authentication. Otherwise, at
        the first opening, only if no daemon answered; later, unless the token is refused.
        """
        if self.goes_on_alone() or isinstance(error, (UnavailableError, DeadlineExceededError)):
            return True
        return self.is_open and not isinstance(error, (UnauthenticatedError, PermissionDeniedError))

    def replaced(self) -> None:
        """Enter that the same runs were opened again in this process: observations here are refused."""
        self._late_refusal = UsageError(
            f"{self.label} was opened again in this process, which goes on with it there; use that run, or"
            " open this one again"
        )
        self._is_replaced = True
        self.refuse_all(self._late_refusal)
        self.drop()

    def hand_over(self, other: Ledger[E], step: int) -> None:
        """Copy observations and updates before a step to another ledger of the same runs."""
        updates = {update.step: update for update in self.backlog.updates}
        for entry in self.unsent():
            if entry.step < step:
                other.observe(entry.step, entry.observed())
                if (update := updates.get(entry.step)) is not None and entry.step < step - 1:
                    other.adapt(update.step, update.alignments, update.validation_losses)

    # ----------------------------------------------------------------------- without a daemon

    def can_stand_in(self) -> bool:
        """Return whether there is a fallback that has a learning rate."""
        return self.standby.can_answer(is_open=self.is_open)

    def goes_on_alone(self) -> bool:
        """Return whether training continues with the fallback, whatever happens to the runs."""
        return self.can_stand_in() and (self.is_open or self.standby.outage is not None)

    def stand_in(self, item: E | Update) -> None:
        """Let the fallback answer an entry or an update, which is nevertheless sent later."""
        if isinstance(item, Update):
            entry = self.backlog.find(item.step)
            self.standby.answer_update(item, entry, self.backlog.durable_step)
        else:
            entry = item
            self.standby.answer(entry, self.backlog.durable_step)
        if entry is not None:
            self._tell(entry)

    def cut_off(self, cause: MlrsError) -> None:
        """Begin an outage after a late answer: the fallback answers until the daemon has every step."""
        if self.standby.outage is None:
            last = self.backlog.last_unanswered()
            self.standby.begin_outage(self.label, cause, self.next_step if last is None else last.step)

    def lose(self, error: MlrsError) -> None:
        """Enter that the daemon cannot continue the run: nothing more is sent, and the fallback answers.

        Losses are kept if the run is not open or the daemon refuses it, since the client then has all that
        the daemon lacks.
        """
        self.cut_off(error)
        self._keeps_losses = not self.is_open or isinstance(error, REFUSED)
        self.standby.lose(error, keeps_losses=self._keeps_losses)
        self.backlog.stop_sending(self.unsent() if self._keeps_losses else None)

    def _is_lost_by(self, error: MlrsError) -> bool:
        """Call `lose` if an error is permanent and the fallback can answer; return whether that is so."""
        if isinstance(error, PERMANENT) and self.can_stand_in():
            self.lose(error)
            return True
        return False


def _label(run_ids: Sequence[str]) -> str:
    if len(run_ids) == 1:
        return f"run {run_ids[0]!r}"
    return f"the sweep of {len(run_ids)} runs from {run_ids[0]!r} on"
