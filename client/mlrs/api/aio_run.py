"""Runs and pending advice of the asyncio client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from mlrs.adapters import RunState, TrialLoop
from mlrs.api.views import AsyncWithBlock, PendingView, RunView, SentView
from mlrs.errors import UsageError
from mlrs.ledger.entries import Entry
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import Update
from mlrs.transport.aio_connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.search_types import SearchResult
from mlrs.values.signals import Signals
from mlrs.values.types import Advice, RunInfo

Held = TypeVar("Held", bound=AsyncWithBlock)


class Opening(Generic[Held]):
    """A run or sweep that is being opened: await it, or enter it with `async with`."""

    def __init__(self, open_: Callable[[], Awaitable[Held]]) -> None:
        self._open = open_
        self._opened: Held | None = None

    def __await__(self) -> Generator[Any, None, Held]:
        return self._open().__await__()

    async def __aenter__(self) -> Held:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.__aexit__(kind, error, trace)


class Run(RunView[Connection], AsyncWithBlock):
    """A training run. See `mlrs.Run`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        await self._connection.tell_rest(self._ledger)

    async def open(self, *, timeout_s: float | None = None) -> Self:
        """Open the run now. See `mlrs.Run.open`."""
        await self._connection.act(self._open(timeout_s))
        return self

    async def resume(self, state: RunState) -> None:
        """Continue from a checkpoint. See `mlrs.Run.resume`."""
        await self._connection.act(self._resume(state))

    async def describe(self, *, default_lr: float | None = None, **config: Any) -> None:
        """State what an adapter has read from the training loop. See `mlrs.Run.describe`."""
        await self._connection.act(self._describe(default_lr, config))

    async def search(
        self,
        loop: TrialLoop,
        *,
        start: str | Callable[[], str] | None = None,
        always: bool = False,
        charge_steps: bool = False,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """Find the learning rate to begin with; the loop's methods block. See `mlrs.Run.search`."""
        action = self._search(loop, start, timeout_s, always=always, charge_steps=charge_steps)
        return await self._connection.act(action)

    def _opened(self) -> Ledger[Entry]:
        if not self._ledger.is_open and self._ledger.standby.outage is None:
            raise UsageError(f"run {self.id!r} is not open yet; await run.open() first")
        return self._ledger

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
        """Send the loss of a step and return at once; not to be awaited itself. See `mlrs.Run`."""
        sent = self._observe(step, loss, samples, signals, restored=restored, lagged=lagged)
        return Pending(self._connection, self._ledger, *sent)

    async def next_lr(
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
        """Return the learning rate for the update of a step. See `mlrs.Run.next_lr`."""
        pending = self.observe(step, loss, samples=samples, signals=signals, restored=restored, lagged=lagged)
        return await pending.lr(timeout_s=timeout_s)

    async def adapt(
        self,
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make the meta update of a step. See `mlrs.Run.adapt`."""
        pending = self.send_alignment(step, alignment, validation_loss=validation_loss)
        return await pending.adaptation(timeout_s=timeout_s)

    def send_alignment(
        self, step: int, alignment: float, *, validation_loss: float | None = None
    ) -> PendingAdaptation:
        """Send the meta update of a step and return at once; not to be awaited itself."""
        update = self._adapt(step, alignment, validation_loss)
        return PendingAdaptation(self._connection, self._ledger, update)

    async def finish(
        self, *, metric: float | None = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> RunInfo | None:
        """Mark the run as finished. See `mlrs.Run.finish`."""
        self._check_attached()
        metrics = check.metric(metric)
        action = self._finished(metrics, timeout_s, higher_is_better=higher_is_better)
        infos = await self._connection.act(action)
        await self._connection.tell_rest(self._ledger)
        return None if infos is None else infos[0]


class Pending(PendingView[Connection]):
    """An observation that was sent. Awaiting it returns the learning rate."""

    async def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of the step. See `mlrs.Pending.lr`."""
        if self._lagged_lr is not None:
            return self._lagged_lr
        if not self._is_done():
            await self._connection.wait(self._answered(timeout_s))
        return self._entry.lr()

    async def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the advice. See `mlrs.Pending.advice`."""
        if not self._is_done():
            await self._connection.wait(self._answered(timeout_s))
        return self._result()

    def __await__(self) -> Generator[Any, None, float]:
        return self.lr().__await__()


class PendingAdaptation(SentView[Connection, Update]):
    """A meta update that was sent. Awaiting it returns its result."""

    async def adaptation(self, *, timeout_s: float | None = None) -> Adaptation:
        """Return the result. See `mlrs.Run.adapt`."""
        if not self._is_done():
            await self._connection.wait(self._answered(timeout_s))
        (adaptation,) = self._entry.adaptations()
        return adaptation

    def __await__(self) -> Generator[Any, None, Adaptation]:
        return self.adaptation().__await__()
