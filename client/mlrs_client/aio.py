"""The client for asyncio; the same shape as `mlrs_client`, to be awaited.

    async with mlrs_client.aio.connect("localhost:50051") as advisor:
        async with advisor.run("resnet18-cifar10", horizon=10_000) as run:
            pending = run.observe(step, loss)   # returns at once
            lr = await pending.lr()

An advisor belongs to the event loop that it was made in. Arguments, errors and results are those of
the methods of the same names in `mlrs_client`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from types import TracebackType
from typing import Any, Self, TypeVar

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._advisor import DEFAULT_TIMEOUT_S, RECORD_TIMEOUT_S, opening_timeout_s
from mlrs_client._aio_connection import Connection, Signal
from mlrs_client._ledger import Entry, Ledger
from mlrs_client._session import Deadline
from mlrs_client._types import (
    Advice,
    ModelInfo,
    Optimizer,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunStatus,
    Schedule,
)
from mlrs_client._views import PendingView, RunView, given_fields

__all__ = ["Advisor", "Pending", "Run", "connect"]

T = TypeVar("T")


def connect(target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Advisor:
    """Return an advisor of the daemon at an address; to be called while an event loop runs.

    See `mlrs_client.connect`.
    """
    return Advisor(Connection(check.target(target), check.timeout_s(timeout_s)))


class Advisor:
    """A connection to a daemon. May be shared by the tasks of one event loop.

    Close it, or use it as an asynchronous context manager. See `mlrs_client.Advisor`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        model: str | None = None,
        policy: Schedule | str | None = None,
        base_lr: float | None = None,
        warmup: int | None = None,
        horizon: int | None = None,
        num_classes: int | None = None,
        scale: float | None = None,
        snapshot: int | None = None,
        optimizer: Optimizer | str | None = None,
        momentum: float | None = None,
        initial_lr: float | None = None,
        min_lr: float | None = None,
        max_lr: float | None = None,
        mode: check.OpenMode = "open",
        resume_from: int | None = None,
        timeout_s: float | None = None,
    ) -> OpeningRun:
        """Open a training run, with `async with` or `await`. See `mlrs_client.Advisor.run`."""
        config = check.config(
            model=model,
            policy=policy,
            base_lr=base_lr,
            warmup=warmup,
            horizon=horizon,
            num_classes=num_classes,
            scale=scale,
            snapshot=snapshot,
            optimizer=optimizer,
            momentum=momentum,
            initial_lr=initial_lr,
            min_lr=min_lr,
            max_lr=max_lr,
        )
        call = calls.checked_open_run(id, config, mode, resume_from)
        limit_s = self._limit_s(opening_timeout_s(timeout_s, resume_from))
        return OpeningRun(self._connection, call, config, limit_s)

    async def runs(self, prefix: str = "", status: RunStatus | str | None = None) -> AsyncIterator[RunInfo]:
        """Iterate over the runs by id, optionally only those of a prefix or a status."""
        prefix, status = check.prefix(prefix), check.status(status)
        async for run in self._pages(lambda token: calls.list_runs(prefix, status, token)):
            yield run

    async def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run."""
        return await self._invoke(calls.get_run(id))

    async def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record."""
        await self._invoke(calls.delete_run(id))

    def watch(
        self,
        id: str,  # noqa: A002 # what users call it
        from_step: int = 0,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RecordChunk]:
        """Iterate over the record of a run. See `mlrs_client.Advisor.watch`."""
        request = calls.watch_run(id, from_step, follow)
        if timeout_s is None:
            return self._connection.watch(request, None if follow else RECORD_TIMEOUT_S)
        return self._connection.watch(request, check.timeout_s(timeout_s))

    async def models(self) -> AsyncIterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        async for model in self._pages(calls.list_models):
            yield model

    async def model(self, name: str) -> ModelInfo:
        """Return a model by name, alias or `name@digest`."""
        return await self._invoke(calls.get_model(name))

    async def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Advisor of {self._connection.target}>"

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)

    async def _invoke(self, call: calls.Call[T]) -> T:
        return await self._connection.invoke(call, self._connection.timeout_s)

    async def _pages(self, page_at: Callable[[str], calls.Call[calls.Page[T]]]) -> AsyncIterator[T]:
        token = ""
        while True:
            page = await self._invoke(page_at(token))
            for item in page.items:
                yield item
            if not (token := page.next_token):
                return


class OpeningRun:
    """A run that is about to be opened: await it, or enter it with `async with`."""

    def __init__(
        self, connection: Connection, call: calls.Call[calls.OpenedRun], config: RunConfig, timeout_s: float
    ) -> None:
        self._connection = connection
        self._call = call
        self._config = config
        self._timeout_s = timeout_s
        self._run: Run | None = None

    async def _open(self) -> Run:
        opened = await self._connection.invoke(self._call, self._timeout_s)
        ledger = Ledger(opened, Signal(), given_fields(self._config))
        self._connection.session.join(ledger)
        return Run(self._connection, ledger)

    def __await__(self) -> Generator[Any, None, Run]:
        return self._open().__await__()

    async def __aenter__(self) -> Run:
        self._run = await self._open()
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.detach()


class Run(RunView):
    """An open training run. See `mlrs_client.Run`."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._connection = connection

    def observe(self, step: int, loss: float) -> Pending:
        """Send the loss of a step and return at once; not to be awaited itself."""
        self._check_attached()
        self._connection.check()
        entry, is_new = self._connection.session.observe(self._ledger, check.step(step), check.loss(loss))
        return Pending(self._connection, self._ledger, entry, replayed=not is_new)

    async def next_lr(self, step: int, loss: float, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of a step."""
        return await self.observe(step, loss).lr(timeout_s=timeout_s)

    async def finish(self, *, timeout_s: float | None = None) -> RunInfo:
        """Mark the run as finished: it takes no more observations, and all of its record is durable."""
        self._check_attached()
        deadline = _deadline(self._connection, timeout_s)
        return await self._connection.perform(
            self._connection.session.finish(self._ledger, deadline), deadline
        )

    def detach(self) -> None:
        """Leave the run without finishing it, as the end of an `async with` block does."""
        self._detached = True
        self._connection.session.leave(self._ledger)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class Pending(PendingView):
    """An observation that was sent; its advice is here or on its way. Awaited, it is the LR."""

    def __init__(self, connection: Connection, ledger: Ledger, entry: Entry, *, replayed: bool) -> None:
        super().__init__(entry, replayed=replayed)
        self._connection = connection
        self._ledger = ledger

    async def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of the step."""
        await self._wait(timeout_s)
        return self._entry.lr()

    async def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the advice. See `mlrs_client.Pending.advice`."""
        await self._wait(timeout_s)
        return self._result()

    async def _wait(self, timeout_s: float | None) -> None:
        if not self._entry.done:
            deadline = _deadline(self._connection, timeout_s)
            procedure = self._connection.session.answered(self._ledger, self._entry, deadline)
            await self._connection.perform(procedure, deadline)

    def __await__(self) -> Generator[Any, None, float]:
        return self.lr().__await__()


def _deadline(connection: Connection, timeout_s: float | None) -> Deadline:
    return Deadline(connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s))
