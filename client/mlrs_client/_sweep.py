"""Sweeps of the threaded client: many runs that take their steps together, on arrays."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._connection import Connection
from mlrs_client._deadline import Deadline
from mlrs_client._exceptions import ClosedError, MlrsError, StepAheadError, UnavailableError
from mlrs_client._ledger import Ledger
from mlrs_client._meta_calls import sweep_update
from mlrs_client._meta_types import Adaptation
from mlrs_client._rows import Floats, Row, losses_of
from mlrs_client._types import RunInfo
from mlrs_client._unsent import let_go
from mlrs_client._waiting import answered, check_complete, is_away, paused, settled


class SweepView:
    """The attributes of an open sweep, in both flavours of the client."""

    def __init__(self, ledger: Ledger[Row]) -> None:
        self._ledger = ledger
        self._detached = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs' ids; arrays are in their order."""
        return self._ledger.run_ids

    @property
    def created(self) -> bool:
        """Whether opening the sweep created every run."""
        return self._ledger.created

    @property
    def resume_step(self) -> int:
        """The step to observe next: that of the run that is the furthest behind."""
        return self._ledger.next_step

    @property
    def durable_step(self) -> int:
        """Observations of all runs up to and including this step survive a crash; -1: none yet."""
        return self._ledger.backlog.durable_step

    @property
    def fallback_steps(self) -> int:
        """How many steps the fallback has answered, as the daemon was out of reach."""
        return self._ledger.standby.steps

    def __len__(self) -> int:
        """Return the number of runs."""
        return self._ledger.size

    def __repr__(self) -> str:
        first, step = self.ids[0], self.resume_step
        return f"<{type(self).__name__} of {len(self)} runs, {first!r} the first: next step {step}>"

    def _checked(self, step: Any, losses: Any) -> tuple[int, Floats]:
        if self._detached:
            raise self._left()
        return check.step(step), losses_of(losses, len(self))

    def _left(self) -> ClosedError:
        return ClosedError(f"{self._ledger.label} was left; open it again with advisor.sweep(...)")


class Sweep(SweepView):
    """Many open runs as one. Leaving its `with` block detaches from them and does not finish them."""

    def __init__(self, connection: Connection, ledger: Ledger[Row]) -> None:
        super().__init__(ledger)
        self._connection = connection

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
        if self._detached:
            raise self._left()
        update = self._connection.adapt(
            self._ledger, *sweep_update(step, alignments, validation_losses, len(self))
        )
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
        deadline = self._connection.deadline(timeout_s)
        try:
            infos = self._finished(deadline)
        except MlrsError as error:
            if not is_away(self._ledger, error):
                raise
            self._connection.keep_unsent(self._ledger, error)
            return None
        self._ledger.is_finished = True
        let_go(self._ledger)
        self._connection.leave(self._ledger)
        return infos

    def _finished(self, deadline: Deadline) -> tuple[RunInfo, ...]:
        session, ledger, lacks = self._connection.session, self._ledger, False
        while True:
            self._connection.wait(settled(session, ledger, deadline, again=lacks))
            finished: tuple[RunInfo, ...] = ()
            try:
                home = session.home_of(ledger)
                for call in calls.finishing(self.ids, ledger.next_step):
                    finished += self._connection.invoke(call, deadline.left_s(), home)
            except StepAheadError:  # as in `Run.finish`
                if not ledger.backlog.has_volatile() or not deadline.left_s():
                    raise
                lacks = True
            except UnavailableError as error:
                self._connection.wait(paused(ledger, deadline, error))
            else:
                check_complete(ledger, finished)
                return finished

    def detach(self) -> None:
        """Leave the runs without finishing them, as the end of a `with` block does."""
        self._detached = True
        self._connection.leave(self._ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class PendingSweepView:
    """The attributes of the observations of a step, in both flavours of the client."""

    def __init__(self, row: Row) -> None:
        self._row = row

    @property
    def step(self) -> int:
        """The step that was observed."""
        return self._row.step

    def done(self) -> bool:
        """Return whether the advice, or the refusal, is here."""
        return self._row.done

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of step {self.step}, {'done' if self.done() else 'waiting'}>"


class PendingSweep(PendingSweepView):
    """Observations of a step that were sent; their advice is here or on its way."""

    def __init__(self, connection: Connection, ledger: Ledger[Row], row: Row) -> None:
        super().__init__(row)
        self._connection = connection
        self._ledger = ledger

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
        self._connection.check_process()
        if not self._row.done:
            deadline = self._connection.deadline(timeout_s)
            self._connection.wait(answered(self._connection.session, self._ledger, self._row, deadline))
        return self._row.lrs()
