"""Sweeps of the asyncio client. See `_sweep`."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Any, Self

from mlrs_client import _calls as calls
from mlrs_client._aio_connection import Connection
from mlrs_client._deadline import Deadline
from mlrs_client._exceptions import MlrsError, StepAheadError, UnavailableError
from mlrs_client._ledger import Ledger
from mlrs_client._meta_calls import sweep_update
from mlrs_client._meta_types import Adaptation
from mlrs_client._rows import Floats, Row
from mlrs_client._sweep import PendingSweepView, SweepView
from mlrs_client._types import RunInfo
from mlrs_client._unsent import let_go
from mlrs_client._waiting import answered, check_complete, is_away, paused, settled


class Sweep(SweepView):
    """Many open runs as one. See `Sweep` of the threaded client."""

    def __init__(self, connection: Connection, ledger: Ledger[Row]) -> None:
        super().__init__(ledger)
        self._connection = connection

    def observe(self, step: int, losses: Any) -> PendingSweep:
        """Send the losses of a step and return at once; not to be awaited itself."""
        self._connection.check()
        row, _ = self._connection.session.observe(self._ledger, *self._checked(step, losses))
        return PendingSweep(self._connection, self._ledger, row)

    async def next_lrs(self, step: int, losses: Any, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates for the updates of a step, (runs,) float64."""
        return await self.observe(step, losses).lrs(timeout_s=timeout_s)

    async def adapt(
        self,
        step: int,
        alignments: Any,
        *,
        validation_losses: Any = None,
        timeout_s: float | None = None,
    ) -> tuple[Adaptation, ...]:
        """Make the meta updates of a step, one of each run. See the threaded client's."""
        if self._detached:
            raise self._left()
        self._connection.check()
        update = self._connection.session.adapt(
            self._ledger, *sweep_update(step, alignments, validation_losses, len(self))
        )
        if not update.done:
            deadline = self._connection.deadline(timeout_s)
            await self._connection.wait(answered(self._connection.session, self._ledger, update, deadline))
        return update.adaptations()

    async def finish(self, *, timeout_s: float | None = None) -> tuple[RunInfo, ...] | None:
        """Mark the runs as finished. See the threaded client's."""
        deadline = self._connection.deadline(timeout_s)
        try:
            infos = await self._finished(deadline)
        except MlrsError as error:
            if not is_away(self._ledger, error):
                raise
            self._connection.keep_unsent(self._ledger, error)
            return None
        self._ledger.is_finished = True
        let_go(self._ledger)
        self._connection.session.forget(self._ledger)
        return infos

    async def _finished(self, deadline: Deadline) -> tuple[RunInfo, ...]:
        session, ledger, lacks = self._connection.session, self._ledger, False
        while True:
            await self._connection.wait(settled(session, ledger, deadline, again=lacks))
            finished: tuple[RunInfo, ...] = ()
            try:
                home = session.home_of(ledger)
                for call in calls.finishing(self.ids, ledger.next_step):
                    finished += await self._connection.invoke(call, deadline.left_s(), home)
            except StepAheadError:  # as in `Run.finish`
                if not ledger.backlog.has_volatile() or not deadline.left_s():
                    raise
                lacks = True
            except UnavailableError as error:
                await self._connection.wait(paused(ledger, deadline, error))
            else:
                check_complete(ledger, finished)
                return finished

    def detach(self) -> None:
        """Leave the runs without finishing them, as the end of an `async with` block does."""
        self._detached = True
        self._connection.session.forget(self._ledger)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class PendingSweep(PendingSweepView):
    """Observations of a step that were sent. Awaited, they are the learning rates."""

    def __init__(self, connection: Connection, ledger: Ledger[Row], row: Row) -> None:
        super().__init__(row)
        self._connection = connection
        self._ledger = ledger

    async def lrs(self, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates, (runs,) float64. See the threaded client's."""
        self._connection.check_process()
        if not self._row.done:
            deadline = self._connection.deadline(timeout_s)
            await self._connection.wait(answered(self._connection.session, self._ledger, self._row, deadline))
        return self._row.lrs()

    def __await__(self) -> Generator[Any, None, Floats]:
        return self.lrs().__await__()
