"""Runs and pending advice of the threaded client."""

from __future__ import annotations

from typing import Any, Self

from mlrs.adapters import RunState
from mlrs.api.views import PendingView, RunView, SentView, WithBlock
from mlrs.ledger.entries import Entry
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import Update
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.types import Advice, RunInfo


class Run(RunView[Connection], WithBlock):
    """A training run. Leaving its `with` block detaches from it and does not finish it.

    It is opened by the first observation, or whatever else needs that: where it begins depends on the step.
    """

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
        self._connection.act(self._open(timeout_s))
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
        self._connection.act(self._resume(state))

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
        self._connection.act(self._describe(default_lr, config))

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
        sent = self._observe(step, loss, samples, lagged=lagged)
        return Pending(self._connection, self._ledger, *sent)

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
        update = self._adapt(step, alignment, validation_loss)
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
        infos = self._connection.act(self._finished(timeout_s))
        return None if infos is None else infos[0]

    def _opened(self) -> Ledger[Entry]:
        if not self._ledger.is_open:
            self.open()
        return self._ledger


class Pending(PendingView[Connection]):
    """An observation that was sent; its advice is here or on its way."""

    def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update. See `advice`, and `lagged` of `Run.observe`."""
        if self._lagged_lr is not None:
            return self._lagged_lr
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
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
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        return self._result()


class PendingAdaptation(SentView[Connection, Update]):
    """A meta update that was sent; what came of it is here or on its way."""

    def adaptation(self, *, timeout_s: float | None = None) -> Adaptation:
        """Return what came of it; waits for it. See `Run.adapt`."""
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        (adaptation,) = self._entry.adaptations()
        return adaptation
