"""Sweeps of the asyncio client. See `mlrs.api.sweep`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from mlrs.api.sweep import SweepView
from mlrs.api.views import AsyncWithBlock, SentView
from mlrs.ledger.sweep_entries import Floats, Row, metrics_of
from mlrs.protocol.waiting import answered
from mlrs.transport.aio_connection import Connection
from mlrs.values.meta_types import Adaptation
from mlrs.values.types import RunInfo


class Sweep(SweepView[Connection], AsyncWithBlock):
    """Many open runs as one. See `Sweep` of the threaded client."""

    def observe(self, step: int, losses: Any) -> PendingSweep:
        """Send the losses of a step and return at once; not to be awaited itself."""
        row, _ = self._connection.observe(self._ledger, *self._checked(step, losses))
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
        update = self._adapt(step, alignments, validation_losses)
        if not update.done:
            deadline = self._connection.deadline(timeout_s)
            await self._connection.wait(answered(self._connection.session, self._ledger, update, deadline))
        return update.adaptations()

    async def finish(
        self, *, metrics: Any = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> tuple[RunInfo, ...] | None:
        """Mark the runs as finished. See the threaded client's."""
        checked = () if metrics is None else metrics_of(metrics, len(self))
        action = self._finished(checked, timeout_s, higher_is_better=higher_is_better)
        return await self._connection.act(action)


class PendingSweep(SentView[Connection, Row]):
    """Observations of a step that were sent. Awaiting them returns the learning rates."""

    async def lrs(self, *, timeout_s: float | None = None) -> Floats:
        """Return the learning rates, (runs,) float64. See the threaded client's."""
        if not self._is_done():
            await self._connection.wait(self._answered(timeout_s))
        return self._entry.lrs()

    def __await__(self) -> Generator[Any, None, Floats]:
        return self.lrs().__await__()
