"""Sweeps of the threaded client: many runs that take their steps together, on arrays."""

from __future__ import annotations

from typing import Any

from mlrs.api.actions import C
from mlrs.api.views import RunsView, SentView, WithBlock
from mlrs.ledger.rows import Floats, Row, losses_of
from mlrs.ledger.updates import Update
from mlrs.protocol.waiting import answered
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.types import RunInfo
from mlrs.wire.meta_calls import sweep_update


class SweepView(RunsView[C, Row]):
    """What a sweep is in both flavours of the client."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs' ids; arrays are in their order."""
        return self._ledger.run_ids

    @property
    def created(self) -> bool:
        """Whether opening the sweep created every run."""
        return self._ledger.created

    @property
    def next_step(self) -> int:
        """The step to observe next: that of the run that is the furthest behind."""
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
            InvalidArgumentError: the step is none, or the losses are not one number a run.
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
        """Make the meta updates of a step, one of each run; waits for what comes of them. See `Run.adapt`.

        Args:
            step: the step that was observed last.
            alignments: (runs,), an array, list or tensor, in the order of `ids`. NaN: that run has none, and
                its outcome is `skipped`.
            validation_losses: (runs,), likewise; kept in the runs' records.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            MlrsError: as `Run.adapt`; the error of a refusal says whose it was.
        """
        update = self._adapt(step, alignments, validation_losses)
        if not update.done:
            deadline = self._connection.deadline(timeout_s)
            self._connection.wait(answered(self._connection.session, self._ledger, update, deadline))
        return update.adaptations()

    def finish(self, *, timeout_s: float | None = None) -> tuple[RunInfo, ...] | None:
        """Mark the runs as finished: they take no more observations, and all of their records are durable.

        Where no daemon answers, as `Run.finish`: a warning, a file, and `None`.

        Raises:
            MlrsError: as `Run.finish`.
        """
        return self._connection.act(self._finished(timeout_s))


class PendingSweep(SentView[Connection, Row]):
    """Observations of a step that were sent; their advice is here or on its way."""

    def lrs(self, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates, (runs,) float64; waits for them.

        Args:
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            DeadlineExceededError: they did not come in time, and there is no fallback, or nothing that it
                could answer yet. The losses are kept: ask again.
            UnavailableError: the daemon was out of reach all the time. As above.
            MlrsError: the daemon refused the loss of a run; the error says whose and why. The other runs
                were advised: open the sweep again, with `resume_from` if it is to go back.
        """
        if not self._is_done():
            self._connection.wait(self._answered(timeout_s))
        return self._entry.lrs()
