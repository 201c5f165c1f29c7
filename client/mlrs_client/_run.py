"""Runs and pending advice of the threaded client."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._connection import Connection
from mlrs_client._deadline import Deadline
from mlrs_client._entries import Entry
from mlrs_client._exceptions import MlrsError, StepAheadError, UnavailableError
from mlrs_client._joining import completed
from mlrs_client._ledger import Ledger
from mlrs_client._meta_calls import run_update
from mlrs_client._meta_types import Adaptation
from mlrs_client._signal import Signal
from mlrs_client._starting import adopted, read_off
from mlrs_client._types import Advice, RunInfo
from mlrs_client._unsent import let_go
from mlrs_client._updates import Update
from mlrs_client._views import Lag, PendingUpdateView, PendingView, RunView
from mlrs_client._waiting import answered, check_complete, is_away, opened, paused, settled
from mlrs_client.adapters import RunState


class Run(RunView):
    """A training run. Leaving its `with` block detaches from it and does not finish it.

    It is opened by the first observation, or whatever else needs that: where it begins depends on the step.
    """

    def __init__(self, connection: Connection, ledger: Ledger[Entry]) -> None:
        super().__init__(ledger)
        self._connection = connection

    def open(self, *, timeout_s: float | None = None) -> Self:
        """Open the run now, so that what is wrong with it is raised here; then do nothing.

        Args:
            timeout_s: the deadline, in seconds. Default: that of `Advisor.run`.

        Raises:
            RunExistsError, RunNotFoundError, RunFinishedError, ConfigMismatchError, ModelNotFoundError: the
                daemon refused; see `Advisor.run`.
            DeadlineExceededError, UnavailableError: no daemon answered within the deadline, and the run does
                not begin with its fallback (`on_unavailable`).
            ClosedError, ForkedError: see `Advisor`.
        """
        self._check_attached()
        deadline = self._connection.deadline_of(self._ledger, timeout_s)
        self._connection.wait(opened(self._connection.session, self._ledger, deadline))
        return self

    def resume(self, state: RunState) -> None:
        """Go on from a checkpoint: as the run, and at the step, of a state.

        What was recorded of that run from the step on is dropped. What was asked for when this run was made,
        such as its horizon, holds for that run.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidArgumentError: it has not come to that step.
            MlrsError: as `open`.
        """
        self._check_attached()
        before = self._ledger, self._lag
        ledger = self._connection.locked(lambda: adopted(self._ledger, Signal(), state))
        if ledger is self._ledger:
            return
        try:
            self._connection.session.add(ledger)
            self._ledger, self._lag = ledger, Lag()
            self.open()
        except BaseException:
            self._ledger, self._lag = before
            raise
        if ledger.run_ids == before[0].run_ids:
            self._connection.locked(before[0].drop)
        self._connection.leave(before[0])

    def describe(self, *, default_lr: float | None = None, **config: Any) -> None:
        """Say what an adapter reads off the training loop; what the caller gave counts more.

        Called before the first observation. With it the run may begin without a daemon, unless its caller
        said otherwise: an adapter's user has a training loop to go on with.

        Args:
            default_lr: the learning rate to go on with then, if there is no other.
            config: `optimizer` and `momentum`, as for `Advisor.run`.

        Raises:
            ConfigMismatchError: the run is open, and was begun with another optimizer.
            MlrsError: it is open, and the daemon could not be told.
        """
        self._check_attached()
        if (lacking := read_off(self._ledger, default_lr, **config)) is not None:
            completion = completed(self._connection.session, self._ledger, lacking)
            self._connection.perform(completion, self._connection.timeout_s)

    def observe(
        self, step: int, loss: float, *, samples: float | None = None, lagged: bool = False
    ) -> Pending:
        """Send the loss of a step and return at once.

        Args:
            step: the run's next step, or one observed before, with the same loss.
            loss: any real number, or an array or tensor of one. NaN and infinities are legal: the last
                learning rate is held.
            samples: where several ranks report, how many samples the loss is the mean of. Default: 1.
            lagged: have `Pending.lr` return the newest learning rate of the steps before, as a rule that for
                the step before, and not wait. Only the first step of a run waits, as there is none yet.

        Raises:
            InvalidArgumentError: the step or the loss is none.
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed with another loss.
            ClosedError, ForkedError: see `Advisor`.
            MlrsError: `lagged`, and the daemon refused a step before.
        """
        self._check_attached()
        step, observed = check.step(step), self._observed(loss, samples)
        if not lagged:
            entry, is_new = self._connection.observe(self._ledger, step, observed)
            return Pending(self._connection, self._ledger, entry, replayed=not is_new)
        self._connection.check()
        lr = self._lag.newest(before=step)
        entry, is_new = self._connection.observe(self._ledger, step, observed)
        self._lag.add(entry)
        if lr is not None:
            lr = self._connection.lagging(self._ledger, entry, lr, self._lag.late_s())
        return Pending(self._connection, self._ledger, entry, replayed=not is_new, lagged_lr=lr)

    def next_lr(
        self,
        step: int,
        loss: float,
        *,
        samples: float | None = None,
        lagged: bool = False,
        timeout_s: float | None = None,
    ) -> float:
        """Return the learning rate for the update of a step; waits for it.

        Args:
            step: as for `observe`.
            loss: as for `observe`.
            samples: as for `observe`.
            lagged: return the newest learning rate of the steps before, and do not wait; as for `observe`.
            timeout_s: the deadline, in seconds. Default: the advisor's; where several ranks report, ten
                minutes, as it is the others that are waited for.

        Raises:
            MlrsError: as `observe` and `Pending.lr`.
        """
        if lagged:
            return self.observe(step, loss, samples=samples, lagged=True).lr(timeout_s=timeout_s)
        self._check_attached()
        step, observed = check.step(step), self._observed(loss, samples)
        deadline = self._connection.deadline_of(self._ledger, timeout_s)
        return self._connection.exchange(self._ledger, step, observed, deadline).lr()

    def adapt(
        self,
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make the meta update of a step, between its observation and the next; waits for what comes of it.

        Args:
            step: the step that was observed last.
            alignment: <gradient of the validation loss at w', d>, with w' = w - lr * d, or halfway there, as
                `MetaStep` has it; finite.
            validation_loss: the loss at w', kept in the run's record.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Returns:
            What it did. Its `learning_rate` is the one to use where the run's order is `before_step`. If the
            daemon does not answer in time, that is the one that was advised, the outcome is `fallback`, and
            the update is kept and made once the daemon is back, in its place.

        Raises:
            InvalidArgumentError: the step or a number is none.
            ConfigMismatchError: the run is not in meta mode.
            StepAheadError: the step was not observed yet.
            StaleStepError: the next step was, or the step has an update of another alignment.
            DeadlineExceededError, UnavailableError: no answer, and no fallback. It is kept: ask again.
            ClosedError, ForkedError: see `Advisor`.
        """
        pending = self.send_alignment(step, alignment, validation_loss=validation_loss)
        return pending.adaptation(timeout_s=timeout_s)

    def send_alignment(
        self, step: int, alignment: float, *, validation_loss: float | None = None
    ) -> PendingAdaptation:
        """Send the meta update of a step and return at once. As `adapt`, without the wait."""
        self._check_attached()
        update = self._connection.adapt(self._ledger, *run_update(step, alignment, validation_loss))
        return PendingAdaptation(self._connection, self._ledger, update)

    def finish(self, *, timeout_s: float | None = None) -> RunInfo | None:
        """Mark the run as finished: it takes no more observations, and all of its record is durable.

        Training is done by then, so no daemon ends it: where none answers in time, a warning says what it
        does not have, and names the file in which that is kept (`connect(unsent_dir=)`), for
        `mlrs runs push`.

        Returns:
            The run; `None` where no daemon answered.

        Raises:
            RunFinishedError: it was finished before it had every observation.
            DeadlineExceededError, UnavailableError: no daemon answered in time, and the run has no fallback.
                Call it again.
            MlrsError: the daemon refused the run.
        """
        self._check_attached()
        deadline = self._connection.deadline(timeout_s)
        try:
            info = self._finished(deadline)
        except MlrsError as error:
            if not is_away(self._ledger, error):
                raise
            self._connection.keep_unsent(self._ledger, error)
            return None
        self._ledger.is_finished = True
        let_go(self._ledger)
        self._connection.leave(self._ledger)
        return info

    def _finished(self, deadline: Deadline) -> RunInfo:
        session, ledger, lacks = self._connection.session, self._ledger, False
        self._connection.wait(opened(session, ledger, deadline))
        while True:
            self._connection.wait(settled(session, ledger, deadline, again=lacks))
            (call,) = calls.finishing(ledger.run_ids, ledger.next_step)
            try:
                (info,) = self._connection.invoke(call, deadline.left_s(), session.home_of(ledger))
            except StepAheadError:  # of steps that were answered and not stored when a daemon went away
                if not ledger.backlog.has_volatile() or not deadline.left_s():
                    raise
                lacks = True
            except UnavailableError as error:
                self._connection.wait(paused(ledger, deadline, error))
            else:
                check_complete(ledger, [info])
                return info

    def detach(self) -> None:
        """Leave the run without finishing it, as the end of its `with` block does."""
        self._detached = True
        self._connection.leave(self._ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _opened(self) -> Ledger[Entry]:
        if not self._ledger.is_open:
            self.open()
        return self._ledger


class Pending(PendingView):
    """An observation that was sent; its advice is here or on its way."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger[Entry],
        entry: Entry,
        *,
        replayed: bool,
        lagged_lr: float | None = None,
    ) -> None:
        super().__init__(entry, replayed=replayed, lagged_lr=lagged_lr)
        self._connection = connection
        self._ledger = ledger

    def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update. See `advice`, and `lagged` of `Run.observe`."""
        if self._lagged_lr is not None:
            return self._lagged_lr
        self._wait(timeout_s)
        return self._entry.lr()

    def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the step's own advice; waits for it. If it is late, the run's fallback answers.

        Args:
            timeout_s: the deadline, in seconds. Default: as for `Run.next_lr`.

        Raises:
            DeadlineExceededError: it did not come in time, and there is no fallback, or nothing that it could
                answer yet. The observation is kept: ask again.
            UnavailableError: the daemon was out of reach all the time. As above.
            MlrsError: the daemon refused the observation; the error says why.
        """
        self._wait(timeout_s)
        return self._result()

    def _wait(self, timeout_s: float | None) -> None:
        self._connection.check_process()
        if not self._entry.done:
            deadline = self._connection.deadline_of(self._ledger, timeout_s)
            session = self._connection.session
            self._connection.wait(answered(session, self._ledger, self._entry, deadline))


class PendingAdaptation(PendingUpdateView):
    """A meta update that was sent; what came of it is here or on its way."""

    def __init__(self, connection: Connection, ledger: Ledger[Any], update: Update) -> None:
        super().__init__(update)
        self._connection = connection
        self._ledger = ledger

    def adaptation(self, *, timeout_s: float | None = None) -> Adaptation:
        """Return what came of it; waits for it. See `Run.adapt`."""
        self._wait(timeout_s)
        (adaptation,) = self._update.adaptations()
        return adaptation

    def _wait(self, timeout_s: float | None) -> None:
        self._connection.check_process()
        if not self._update.done:
            deadline = self._connection.deadline(timeout_s)
            session = self._connection.session
            self._connection.wait(answered(session, self._ledger, self._update, deadline))
