"""Runs and pending advice of the threaded client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from mlrs.adapters import RunState, TrialLoop
from mlrs.api.views import PendingView, RunView, SentView, WithBlock
from mlrs.ledger.entries import Entry
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import Update
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.search_types import SearchResult
from mlrs.values.signals import Signals
from mlrs.values.types import Advice, RunInfo


class Run(RunView[Connection], WithBlock):
    """A training run. Leaving its `with` block detaches from the run and does not finish it.

    The daemon opens the run at the first observation, because the first step decides where the run begins;
    or earlier, at the first call that needs an open run.
    """

    def open(self, *, timeout_s: float | None = None) -> Self:
        """Open the run now, so that errors about it are raised here. An open run stays as it is.

        Args:
            timeout_s: the deadline, in seconds. Default: that of `Advisor.run`.

        Raises:
            RunExistsError, RunNotFoundError, RunFinishedError, ConfigMismatchError, ModelNotFoundError: the
                daemon refused; see `Advisor.run`.
            DeadlineExceededError, UnavailableError: no daemon answered within the deadline, and the run may
                not begin with its fallback (`on_unavailable`).
            ClosedError, ForkedError: see `Advisor`.
        """
        self._connection.act(self._open(timeout_s))
        return self

    def resume(self, state: RunState) -> None:
        """Continue from a checkpoint: with the run, and at the step, that the state names.

        The record of that run from the step on is dropped. The options of this run, such as its horizon,
        apply to that run.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidArgumentError: the run has not reached that step.
            MlrsError: as `open`.
        """
        self._connection.act(self._resume(state))

    def describe(self, *, default_lr: float | None = None, **config: Any) -> None:
        """State what an adapter has read from the training loop; options of the caller take precedence.

        Adapters call it before the first observation. After it the run may begin without a daemon, unless
        the caller's `on_unavailable` forbids that.

        Args:
            default_lr: the learning rate to begin with then, if there is no other.
            config: `optimizer`, `momentum` and `rescue`, as for `Advisor.run`.

        Raises:
            ConfigMismatchError: the run is open, and was begun with another optimizer.
            MlrsError: the run is open, and the daemon could not be asked to complete its config.
        """
        self._connection.act(self._describe(default_lr, config))

    def search(
        self,
        loop: TrialLoop,
        *,
        start: str | Callable[[], str] | None = None,
        always: bool = False,
        charge_steps: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find the learning rate to begin with, in a few short trials; call it before the first step.

        The daemon says which trials to make and keeps their results; the loop makes them, and is put back at
        the end. A search takes about 5 % of the horizon in steps, and less of long ones. Afterwards the run
        begins at the learning rate that was found: with its model or schedule if one was named, otherwise
        with the schedule that ends best after a search.

        Args:
            loop: makes the trials: four methods, see `mlrs.adapters.TrialLoop`.
            start: the name of what the trials begin from and are made on, or a function that returns it once
                the loop was saved: 1 to 64 letters, digits and hyphens. After a crash, a search with the same
                name continues, and needs no trial again. Default: a new name.
            always: search even if the horizon is not known or below 200 steps, if the run was given
                `initial_lr`, a model or a policy (`initial_lr` is then where trials begin), or if the memory
                of the task has decided the learning rate.
            charge_steps: whether the trials' steps are part of the horizon, so that the schedule ends so many
                steps earlier.
            timeout_s: the deadline of opening the run, in seconds. Default: that of `Advisor.run`.

        Returns:
            The learning rate, and the trials. No search is made, and the result says why, where it would not
            pay, where the memory of the task has decided the learning rate, where the run has begun, where
            each rank has a run of its own (`rank`), and where no daemon answers and the run has a fallback.

        Raises:
            InvalidArgumentError: a method of the loop returned no number.
            MlrsError: the daemon refused, or is unreachable, and the run has no fallback.
        """
        action = self._search(loop, start, timeout_s, always=always, charge_steps=charge_steps)
        return self._connection.act(action)

    def observe(
        self,
        step: int,
        loss: float,
        *,
        samples: float | None = None,
        signals: Signals | None = None,
        restored: bool = False,
        lagged: bool = False,
    ) -> Pending:
        """Send the loss of a step and return at once.

        Args:
            step: the run's next step, or one observed before, with the same loss and, if any, signals.
            loss: any real number, or an array or tensor of one element. NaN and infinities are legal: the
                last learning rate is held.
            samples: where several ranks report, the number of samples that the loss is the mean of.
                Default: 1.
            signals: measures of the optimizer's step before this one (`mlrs.types.Signals`), which models may
                read besides the loss. Where several ranks report, those of the lowest rank that has signals
                count, normally rank 0.
            restored: whether the loop has put a saved state back in place since the observation before, as
                `Advice.restore` asked. Where several ranks report, that of one rank is enough.
            lagged: `Pending.lr` returns the newest learning rate of the earlier steps, normally that of the
                step before, without waiting. Only the first step of a run waits.

        Raises:
            InvalidArgumentError: the step, the loss or a signal is invalid.
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed with another loss or other signals.
            ClosedError, ForkedError: see `Advisor`.
            MlrsError: with `lagged`: the daemon refused an earlier step.
        """
        sent = self._observe(step, loss, samples, signals, restored=restored, lagged=lagged)
        return Pending(self._connection, self._ledger, *sent)

    def next_lr(
        self,
        step: int,
        loss: float,
        *,
        samples: float | None = None,
        signals: Signals | None = None,
        restored: bool = False,
        lagged: bool = False,
        timeout_s: float | None = None,
    ) -> float:
        """Return the learning rate for the update of a step; waits for it.

        Args:
            step: as for `observe`.
            loss: as for `observe`.
            samples: as for `observe`.
            signals: as for `observe`.
            restored: as for `observe`, whose advice also says when to do it.
            lagged: return the newest learning rate of the earlier steps without waiting; as for `observe`.
            timeout_s: the deadline, in seconds. Default: the advisor's; where several ranks report, ten
                minutes, because the answer waits for the other ranks.

        Raises:
            MlrsError: as `observe` and `Pending.lr`.
        """
        if lagged:
            pending = self.observe(
                step, loss, samples=samples, signals=signals, restored=restored, lagged=True
            )
            return pending.lr(timeout_s=timeout_s)
        self._check_attached()
        step, observed = check.step(step), self._observed(loss, samples, signals, restored)
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
        """Make the meta update of a step, between its observation and the next one; waits for the result.

        Args:
            step: the step that was observed last.
            alignment: <gradient of the validation loss at w', d>, finite. w' = w - lr * d, or halfway there,
                as `MetaStep` computes it.
            validation_loss: the loss at w', stored in the run's record.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Returns:
            The result. Where the run's order is `before_step`, use its `learning_rate`. If the daemon does
            not answer in time, this is the advised learning rate, the outcome is `fallback`, and the client
            sends the update, in its order, once the daemon is back.

        Raises:
            InvalidArgumentError: the step or a number is invalid.
            ConfigMismatchError: the run is not in meta mode.
            StepAheadError: the step was not observed yet.
            StaleStepError: the next step was observed already, or the step has an update of another
                alignment.
            DeadlineExceededError, UnavailableError: no answer, and no fallback. The update is kept: call it
                again.
            ClosedError, ForkedError: see `Advisor`.
        """
        pending = self.send_alignment(step, alignment, validation_loss=validation_loss)
        return pending.adaptation(timeout_s=timeout_s)

    def send_alignment(
        self, step: int, alignment: float, *, validation_loss: float | None = None
    ) -> PendingAdaptation:
        """Send the meta update of a step and return at once: `adapt` without the wait."""
        update = self._adapt(step, alignment, validation_loss)
        return PendingAdaptation(self._connection, self._ledger, update)

    def finish(
        self, *, metric: float | None = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> RunInfo | None:
        """Mark the run as finished: it takes no more observations, and all of its record is durable.

        A missing daemon is no error here if the run has a fallback, since training is over: observations that
        the daemon lacks are written to a file (`connect(unsent_dir=)`) for `mlrs runs push`, and a warning
        names the file.

        Args:
            metric: how good the run came out by your own measure, such as a test accuracy: a number, or an
                array or tensor of one element. The memory of the task compares its runs by it. Default, and
                where it is NaN or infinite: the newest validation loss counts, or else the training loss at
                the end.
            higher_is_better: whether a higher `metric` is better.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Returns:
            The run; `None` where no daemon answered.

        Raises:
            InvalidArgumentError: the metric is no number.
            RunFinishedError: somebody else finished it before it had every observation.
            DeadlineExceededError, UnavailableError: no daemon answered in time, and the run has no fallback.
                Call it again.
            MlrsError: the daemon refused the run.
        """
        self._check_attached()
        metrics = check.metric(metric)
        action = self._finished(metrics, timeout_s, higher_is_better=higher_is_better)
        infos = self._connection.act(action)
        return None if infos is None else infos[0]

    def _opened(self) -> Ledger[Entry]:
        if not self._ledger.is_open:
            self.open()
        return self._ledger


class Pending(PendingView[Connection]):
    """An observation that was sent, and its advice once that has arrived."""

    def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update. See `advice`, and `lagged` of `Run.observe`."""
        if self._lagged_lr is not None:
            return self._lagged_lr
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        return self._entry.lr()

    def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the advice for this step; waits for it. If it is late, the run's fallback answers.

        Args:
            timeout_s: the deadline, in seconds. Default: as for `Run.next_lr`.

        Raises:
            DeadlineExceededError: no advice in time, and no fallback that has a learning rate. The
                observation is kept: call it again.
            UnavailableError: the daemon was unreachable until the deadline, and no fallback. As above.
            MlrsError: the daemon refused the observation; the error says why.
        """
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        return self._result()


class PendingAdaptation(SentView[Connection, Update]):
    """A meta update that was sent, and its result once that has arrived."""

    def adaptation(self, *, timeout_s: float | None = None) -> Adaptation:
        """Return the result; waits for it. See `Run.adapt`."""
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        (adaptation,) = self._entry.adaptations()
        return adaptation
