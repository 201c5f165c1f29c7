"""The asyncio client's channels: calls, procedures, and an end that never hangs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import closing, nullcontext
from functools import partial
from typing import Any, TypeVar, cast

import grpc.aio

from mlrs.errors import ClosedError, MlrsError, UnavailableError
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.addresses import Addresses
from mlrs.protocol.conversation import Conversation
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.following import Following
from mlrs.protocol.joining import called, ensure_joined, stored
from mlrs.protocol.routing import Attempt, Call, Procedure
from mlrs.protocol.session import announce
from mlrs.protocol.waiting import Action, Perform, Waiting, settled
from mlrs.transport.access import Access
from mlrs.transport.aio_stream import AdviceStream
from mlrs.transport.base_connection import GRACE_S, BaseConnection
from mlrs.values.types import RecordChunk
from mlrs.wire.convert import chunk_from_proto
from mlrs.wire.status import map_rpc_errors

T = TypeVar("T")
_logger = logging.getLogger("mlrs")


class Signal:
    """Wakes the tasks that wait for an event of a run."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Wake all tasks, which then check their condition again."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return when notified, or after `timeout_s`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self._waiting.discard(future)


class Connection(BaseConnection):
    """Channels to a daemon's addresses, with one stream for each in use, for the tasks of one event loop."""

    def __init__(
        self,
        addresses: Addresses,
        access: Access,
        timeout_s: float,
        unsent_dir: str = "",
        start: Callable[[], str] | None = None,
    ) -> None:
        """`start` starts the daemon, waits for it and returns its address; called once, in a thread."""
        super().__init__(
            addresses,
            access,
            timeout_s,
            unsent_dir,
            nullcontext(),
            grpc.aio.insecure_channel,
            grpc.aio.secure_channel,
        )
        self._loop = asyncio.get_running_loop()
        self._streams: set[AdviceStream] = set()
        self._watches: set[Any] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start = start
        self._starting: asyncio.Task[None] | None = None

    def signal(self) -> Signal:
        """Return the signal that wakes the tasks which wait for a new run."""
        return Signal()

    async def started(self) -> None:
        """Wait until the daemon is started, where the connection was given how to."""
        if self._start is None:
            return
        if self._starting is None or self._starting.done():  # after an error, again
            self._starting = self._loop.create_task(self._started(self._start))
        await asyncio.shield(self._starting)

    async def _started(self, start: Callable[[], str]) -> None:
        self.addresses.learn(await asyncio.to_thread(start))
        self._start = None

    async def invoke(self, call: Call[T], timeout_s: float, home: str | None = None) -> T:
        """Make a unary call, first at the address `home` if that is given."""
        await self.started()
        return await self.perform(called(self.session, call, timeout_s, home))

    async def act(self, action: Action[T]) -> T:
        """Run an action and return its result."""
        await self.started()
        with closing(action):
            outcome: Any = None
            failure: MlrsError | None = None
            while True:
                try:
                    wanted = action.throw(failure) if failure else action.send(outcome)
                except StopIteration as stop:
                    return cast("T", stop.value)
                outcome, failure = None, None
                try:
                    if isinstance(wanted, Perform):
                        outcome = await self.perform(wanted.procedure)
                    else:
                        outcome = await self.wait(wanted)
                except MlrsError as error:
                    failure = error

    async def perform(self, procedure: Procedure[T]) -> T:
        """Run a procedure and return its result."""
        self.check()
        with closing(procedure):
            outcome: Any = None
            failure: MlrsError | None = None
            while True:
                try:
                    wanted = procedure.throw(failure) if failure else procedure.send(outcome)
                except StopIteration as stop:
                    return cast("T", stop.value)
                outcome, failure = None, None
                try:
                    if isinstance(wanted, Attempt):
                        outcome = await self._attempt(wanted)
                    else:
                        await asyncio.sleep(wanted.timeout_s)
                except MlrsError as error:
                    failure = error

    async def wait(self, waiting: Waiting[T]) -> T:
        """Run a wait and return its result."""
        self.check()
        with closing(waiting):
            while True:
                try:
                    wanted = next(waiting)
                except StopIteration as stop:
                    return cast("T", stop.value)
                await cast("Signal", wanted.ledger.changed).wait(wanted.timeout_s)

    async def tell_rest(self, ledger: Ledger[Any]) -> None:
        """Wait a while until everything about a run was told that its caller has left."""
        if ledger.listener is not None and os.getpid() == self._pid:
            end = ledger.listener.close if ledger.is_finished else ledger.listener.flush
            await asyncio.to_thread(end, self.timeout_s)

    async def watch(self, request: Any, timeout_s: float | None) -> AsyncIterator[RecordChunk]:
        """Stream the record of a run; `timeout_s`: the deadline of the whole, `None`: none."""
        self.check()
        await self.started()
        following = Following(self.addresses, request.from_step, timeout_s, self.timeout_s)
        while True:
            try:
                async for message in self._messages(request, following):
                    if (chunk := following.take(chunk_from_proto(message))) is not None:
                        yield chunk
            except MlrsError as error:
                self.session.check_open()
                await asyncio.sleep(following.broke(error))
            else:
                return

    async def close(self) -> None:
        """Close the streams, within `timeout_s`; then cancel what is left.

        May be called again. Does nothing in a forked child.
        """
        if os.getpid() != self._pid:
            return
        deadline = Deadline(self.timeout_s)
        ledgers = [] if self.session.closing else self.session.unstored()
        unstored = {ledger for ledger in ledgers if not await self._is_stored(ledger, deadline)}
        self.session.closing = True
        deadline = Deadline(self.timeout_s)
        tasks, off_stream = list(self._tasks), self.session.off_stream() | unstored
        for task in tasks:
            task.cancel()
        for watch in list(self._watches):
            watch.cancel()
        for stream in list(self._streams):
            stream.half_close()
        for stream in list(self._streams):
            await stream.close(deadline.left_s())
        if tasks:
            await asyncio.wait(tasks)
        for channel in self._links.channels():
            await channel.close()
        for warning in self._saved_at_close(off_stream):
            self.say(warning)
        self.session.closed()
        deadline = Deadline(self.timeout_s)
        for listener in self.session.listeners():
            await asyncio.to_thread(listener.close, deadline.left_s())

    async def _is_stored(self, ledger: Ledger[Any], deadline: Deadline) -> bool:
        """Wait until the daemon has stored its answers to a run; return whether it has."""
        try:
            if ledger.backlog.last_unanswered() is not None:
                await self.wait(settled(self.session, ledger, deadline))
            return await self.perform(stored(self.session, ledger, max(deadline.left_s(), GRACE_S)))
        except MlrsError:
            return False

    # ---------------------------------------------------------------------- the session's host

    def open_transport(self, conversation: Conversation) -> AdviceStream:
        """Open a stream. See `Host`."""
        method = self._links.method(conversation.address, "StreamAdvice")
        stream = AdviceStream(
            partial(method, metadata=self._links.stream_metadata(self.session.feeder)),
            conversation.take,
            partial(self.session.receive, conversation),
            partial(self._ended, conversation),
            conversation.address,
        )
        self._streams.add(stream)
        return stream

    def start(self, procedure: Procedure[None]) -> None:
        """Run a procedure in a new task. See `Host`."""
        task = self._loop.create_task(self._in_background(procedure))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ensure_joined(self, ledger: Ledger[Any]) -> None:
        """Have a run join a stream if it needs one. See `Host`."""
        ensure_joined(self.session, ledger)

    def abandon(self, conversation: Conversation, error: MlrsError) -> None:
        """Abandon a stream. See `Host`."""
        self.session.abandoned(conversation, error)

    def say(self, message: str) -> None:
        """Log a warning."""
        _logger.warning("%s", message)

    def announce(self, message: str) -> None:
        """Print a line on standard error."""
        announce(message)

    async def _in_background(self, procedure: Procedure[None]) -> None:
        try:
            await self.perform(procedure)
        except ClosedError:
            pass
        except Exception:
            _logger.exception("a defect of mlrs; please report it")

    async def _attempt(self, attempt: Attempt) -> Any:
        method = self._links.method(attempt.address, attempt.call.method)
        try:
            with map_rpc_errors(attempt.address):
                request, metadata = attempt.call.payload(), self._links.metadata
                response = await method(request, timeout=attempt.timeout_s, metadata=metadata)
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            self.session.check_open()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise UnavailableError(f"the connection to {attempt.address} was closed") from error
        return attempt.call.read(response)

    async def _messages(self, request: Any, following: Following) -> AsyncIterator[Any]:
        method = self._links.method(following.address, "WatchRun")
        request.from_step = following.from_step
        call = method(request, timeout=following.left_s(), metadata=self._links.metadata)
        self._watches.add(call)
        try:
            with map_rpc_errors(following.address):
                async for message in call:
                    yield message
        finally:
            self._watches.discard(call)
            call.cancel()

    def _ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        self._streams.discard(cast("AdviceStream", conversation.transport))
        self.session.ended(conversation, error)
