"""Sweeps of the threaded client: many runs that advance together, with arrays of losses and rates."""

from __future__ import annotations

from typing import Any

from mlrs.api.actions import C
from mlrs.api.views import RunsView, SentView, WithBlock
from mlrs.ledger.sweep_entries import Floats, Row, losses_of, metrics_of
from mlrs.ledger.updates import Update
from mlrs.protocol.waiting import answered
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.types import RunInfo
from mlrs.wire.meta_calls import sweep_update


class SweepView(RunsView[C, Row]):
    """The part of a sweep that does not wait, for threads and asyncio."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs' ids, in the order of all arrays."""
        return self._ledger.run_ids

    @property
    def created(self) -> bool:
        """Whether opening the sweep created every run."""
        return self._ledger.created

    @property
    def next_step(self) -> int:
        """The step to observe next: the smallest next step of all runs."""
        return self._ledger.next_step

    def __len__(self) -> int:
        """Return the number of runs."""
        return self._ledger.size

    def __repr__(self) -> str:
        first, step = self.ids[0], self.next_step
        return f"<{type(self).__name__} of {len(self)} runs, {first!r} the first: next step {step}>"

    def _reopened_by(self) -> str:
        return "advisor.sweep(...)"

    def _checked(self, step: Any, losses: Any) -> tuple[int, Floats]:
        self._check_attached()
        return check.step(step), losses_of(losses, len(self))

    def _adapt(self, step: int, alignments: Any, validation_losses: Any) -> Update:
        self._check_attached()
        update = sweep_update(step, alignments, validation_losses, len(self))
        return self._connection.adapt(self._ledger, *update)


class Sweep(SweepView[Connection], WithBlock):
    """Many open runs as one. Leaving its `with` block detaches from them and does not finish them."""

    def observe(self, step: int, losses: Any) -> PendingSweep:
        """Send the losses of a step and return at once.

        Args:
            step: the sweep's next step, or one observed before, with the same losses.
            losses: (runs,), an array, list or tensor of real numbers, in the order of `ids`. The learning
                rate of a run whose loss is NaN or infinite is held.

        Raises:
            InvalidArgumentError: the step is invalid, or the losses are not one number for each run.
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed with other losses.
            ClosedError, ForkedError: see `Advisor`.
        """
        row, _ = self._connection.observe(self._ledger, *self._checked(step, losses))
        return PendingSweep(self._connection, self._ledger, row)

    def next_lrs(self, step: int, losses: Any, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates for the updates of a step, (runs,) float64; waits for them.

        Raises:
            MlrsError: as `observe` and `PendingSweep.lrs`.
        """
        deadline = self._connection.deadline(timeout_s)
        return self._connection.exchange(self._ledger, *self._checked(step, losses), deadline).lrs()

    def adapt(
        self,
        step: int,
        alignments: Any,
        *,
        validation_losses: Any = None,
        timeout_s: float | None = None,
    ) -> tuple[Adaptation, ...]:
        """Make the meta updates of a step, one for each run; waits for the results. See `Run.adapt`.

        Args:
            step: the step that was observed last.
            alignments: (runs,), an array, list or tensor, in the order of `ids`. NaN: the run has no update,
                and its outcome is `skipped`.
            validation_losses: (runs,), an array, list or tensor; stored in the runs' records.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            MlrsError: as `Run.adapt`; the error of a refusal names the run.
        """
        update = self._adapt(step, alignments, validation_losses)
        if not update.done:
            deadline = self._connection.deadline(timeout_s)
            self._connection.wait(answered(self._connection.session, self._ledger, update, deadline))
        return update.adaptations()

    def finish(
        self, *, metrics: Any = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> tuple[RunInfo, ...] | None:
        """Mark the runs as finished: they take no more observations, and all of their records are durable.

        The runs come without their tags and notes, which may be too long for one message.
        If no daemon answers, it returns `None`, as `Run.finish` does, after a warning that names a file.

        Args:
            metrics: (runs,), an array, list or tensor in the order of `ids`: how good each run came out by
                your own measure, as for `Run.finish`. NaN or infinite: the run has no metric.
            higher_is_better: whether higher `metrics` are better.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            InvalidArgumentError: the metrics are not one number for each run.
            MlrsError: as `Run.finish`.
        """
        checked = () if metrics is None else metrics_of(metrics, len(self))
        action = self._finished(checked, timeout_s, higher_is_better=higher_is_better)
        return self._connection.act(action)


class PendingSweep(SentView[Connection, Row]):
    """Observations of a step that were sent, and their advice once that has arrived."""

    def lrs(self, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates, (runs,) float64; waits for them.

        Args:
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            DeadlineExceededError: no advice in time, and no fallback that has a learning rate. The losses
                are kept: call it again.
            UnavailableError: the daemon was unreachable until the deadline, and no fallback. As above.
            MlrsError: the daemon refused the loss of a run; the error names the run and the reason. The other
                runs were advised: open the sweep again, with `resume_from` to go back to a step.
        """
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        return self._entry.lrs()
