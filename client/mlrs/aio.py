"""The client for asyncio: the interface of `mlrs` with methods to await.

    async with mlrs.aio.connect() as advisor:
        run = await advisor.run("resnet18-cifar10", horizon=10_000, num_classes=10, optimizer="sgd")
        for step in range(10_000):
            pending = run.observe(step, train_batch(step))   # returns at once
            lr = await pending.lr()
        await run.finish()

An advisor belongs to the event loop that it was made in. Arguments, errors and results are those of
the methods of the same names in `mlrs`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs.api.aio_reading import Reading
from mlrs.api.aio_run import Opening, Pending, PendingAdaptation, Run
from mlrs.api.pushing import pushed
from mlrs.api.views import AdvisorView
from mlrs.local.target import target_of
from mlrs.protocol.joining import deleted
from mlrs.protocol.routing import Call
from mlrs.transport.access import TLS, access_of
from mlrs.transport.aio_connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.options import (
    DEFAULT_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    RunOptions,
    SweepOptions,
)
from mlrs.values.types import RecordChunk, RunInfo
from mlrs.wire.list_calls import update_run
from mlrs.wire.meta_calls import adapt, adapt_gradients
from mlrs.wire.task_calls import forget_task
from mlrs.wire.unsent import default_folder

if TYPE_CHECKING:
    from mlrs.api.aio_sweep import Sweep

__all__ = ["Advisor", "Pending", "PendingAdaptation", "Run", "connect"]

T = TypeVar("T")


def connect(
    target: str | Sequence[str] | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
    unsent_dir: str | os.PathLike[str] | None = None,
) -> Advisor:
    """Return an advisor of a daemon; to be called while an event loop runs.

    See `mlrs.connect`. If this user's daemon has to be started, the first call that is awaited waits for it.
    """
    found = target_of(target)
    access = access_of(found.addresses, token, tls, allow_insecure_token=allow_insecure_token)
    folder = default_folder() if unsent_dir is None else os.fspath(unsent_dir)
    start = None if found.starter is None else found.starter.start
    return Advisor(Connection(found.known(), access, check.timeout_s(timeout_s), folder, start))


class Advisor(AdvisorView[Connection], Reading):
    """A connection to a daemon. May be shared by the tasks of one event loop.

    Close it, or use it as an asynchronous context manager. See `mlrs.Advisor`.
    """

    def run(self, task: str, **options: Unpack[RunOptions]) -> Opening[Run]:
        """Return a training run, with `async with` or `await`. See `mlrs.Advisor.run`."""
        run = Run(self._connection, self._new_run(task, options))

        async def opening() -> Run:
            await self._connection.started()
            return run if options.get("resume_from") is None else await run.open()

        return Opening(opening)

    def sweep(self, ids: Sequence[str], **options: Unpack[SweepOptions]) -> Opening[Sweep]:
        """Open many training runs as one, with `async with` or `await`. See `mlrs.Advisor.sweep`."""
        ledger = self._new_sweep(ids, options)
        from mlrs.api.aio_sweep import Sweep  # which imports NumPy

        async def opening() -> Sweep:
            await self._connection.started()
            await self._connection.wait(self._opened(ledger))
            return Sweep(self._connection, ledger)

        return Opening(opening)

    async def push(
        self,
        path: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002 # what users call it
        keep: bool = False,
        rewind: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[RunInfo, ...]:
        """Send the observations that a training wrote to a file. See `mlrs.Advisor.push`."""
        action = pushed(self._connection, path, id, timeout_s, keep=keep, rewind=rewind)
        return await self._connection.act(action)

    async def update_run(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        set_tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        note: str | None = None,
    ) -> RunInfo:
        """Change what is noted of a run. See `mlrs.Advisor.update_run`."""
        return await self._invoke(update_run(id, set_tags, remove_tags, note))

    async def forget_task(self, name: str) -> int:
        """Forget how the runs of a task ended. See `mlrs.Advisor.forget_task`."""
        return await self._invoke(forget_task(name))

    async def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record."""
        session = self._connection.session
        await self._connection.perform(deleted(session, check.run_id(id), session.timeout_s))

    async def adapt(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make a meta update of a run that another process observes. See `mlrs.Advisor.adapt`."""
        call = adapt(id, step, alignment, validation_loss)
        return await self._invoke(call, timeout_s)

    async def adapt_gradients(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        validation_gradient: Any,
        direction: Any,
        *,
        data_type: str | None = None,
        validation_loss: float | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Adaptation:
        """Send both vectors of an update. See `mlrs.Advisor.adapt_gradients`."""
        call = adapt_gradients(id, step, validation_gradient, direction, data_type, validation_loss)
        return await self._connection.invoke(call, check.timeout_s(timeout_s))

    async def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _invoke(self, call: Call[T], timeout_s: float | None = None) -> T:
        limit_s = self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)
        return await self._connection.invoke(call, limit_s)

    def _watched(self, request: Any, timeout_s: float | None) -> AsyncIterator[RecordChunk]:
        return self._connection.watch(request, timeout_s)
