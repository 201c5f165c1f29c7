"""The asyncio client's channels: calls, procedures, and an end that never hangs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar, cast

import grpc.aio

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._access import Access
from mlrs_client._addresses import Addresses
from mlrs_client._aio_stream import AdviceStream
from mlrs_client._backlog import E
from mlrs_client._conversation import Conversation
from mlrs_client._convert import chunk_from_proto
from mlrs_client._deadline import Deadline
from mlrs_client._entries import Entry
from mlrs_client._exceptions import ClosedError, MlrsError, UnavailableError
from mlrs_client._following import Following
from mlrs_client._joining import attended, called
from mlrs_client._ledger import Ledger
from mlrs_client._links import Links
from mlrs_client._routing import Attempt, Call, Procedure
from mlrs_client._session import Session, announce, check_process
from mlrs_client._status import map_rpc_errors
from mlrs_client._types import RecordChunk
from mlrs_client._unsent import keep
from mlrs_client._updates import Update
from mlrs_client._waiting import Action, Perform, Waiting, lagging, settled

T = TypeVar("T")
GRACE_S = 0.05
"""What a call may take at least as the advisor is closed, in seconds."""
_logger = logging.getLogger("mlrs_client")


class Signal:
    """What the tasks that wait for something of a run are waiting on."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Let each of them look again."""
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


class Connection:
    """Channels to a daemon's addresses, a stream for each in use, any number of tasks of one event loop.

    Attributes:
        addresses: the daemon's.
        timeout_s: the deadline of a call that names none, in seconds.
        session: the rules.
        unsent_dir: the folder of files of what no daemon got; empty: it is not kept.
    """

    def __init__(
        self, addresses: tuple[str, ...], access: Access, timeout_s: float, unsent_dir: str = ""
    ) -> None:
        self.addresses = Addresses(addresses)
        self.unsent_dir = unsent_dir
        self.timeout_s = timeout_s
        self.session = Session(self.addresses, timeout_s, self, calls)
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._links = Links(grpc.aio.insecure_channel, grpc.aio.secure_channel, access)
        self._streams: set[AdviceStream] = set()
        self._watches: set[Any] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def signal(self) -> Signal:
        """Return what the tasks that wait for something of new runs are waiting on."""
        return Signal()

    def check(self) -> None:
        """Raise unless this process may use the connection, as for the threaded client."""
        check_process(self._pid)
        self.session.check_open()

    def check_process(self) -> None:
        """Raise `ForkedError` if the process is a fork of the one that made it."""
        check_process(self._pid)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline of a call that begins now; `None`: the usual one."""
        return Deadline(self.timeout_s if timeout_s is None else check.timeout_s(timeout_s))

    def deadline_of(self, ledger: Ledger[Any], timeout_s: float | None) -> Deadline:
        """Return the deadline of a call about runs that begins now; `None`: the usual one of the runs."""
        deadline = self.deadline(ledger.patience_s(timeout_s))
        if timeout_s is None and not ledger.is_open:
            deadline.reach_s = ledger.start.timeout_s
        return deadline

    async def invoke(self, call: Call[T], timeout_s: float, home: str | None = None) -> T:
        """Make a unary call, at `home` first if that is given.

        Raises:
            MlrsError: it failed.
        """
        return await self.perform(called(self.session, call, timeout_s, home))

    async def act(self, action: Action[T]) -> T:
        """Carry out an action and return its result.

        Raises:
            MlrsError: it failed.
        """
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
        """Carry out a procedure and return its result.

        Raises:
            MlrsError: it failed.
        """
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
        """Wait as the rules say; return what they return."""
        self.check()
        with closing(waiting):
            while True:
                try:
                    wanted = next(waiting)
                except StopIteration as stop:
                    return cast("T", stop.value)
                await cast("Signal", wanted.ledger.changed).wait(wanted.timeout_s)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Forget a run."""
        self.session.forget(ledger)

    def locked(self, work: Callable[[], T]) -> T:
        """Return what a short piece of work on the session's ledgers gives; one loop needs no lock."""
        self.check()
        return work()

    def observe(self, ledger: Ledger[E], step: int, loss: Any) -> tuple[E, bool]:
        """Send an observation; does not wait. See `Session.observe`."""
        self.check()
        return self.session.observe(ledger, step, loss)

    def adapt(
        self,
        ledger: Ledger[Any],
        step: int,
        alignments: Sequence[float],
        validation_losses: Sequence[float | None],
    ) -> Update:
        """Send a meta update; does not wait. See `Session.adapt`."""
        self.check()
        return self.session.adapt(ledger, step, alignments, validation_losses)

    def lagging(self, ledger: Ledger[Any], entry: Entry, lr: float, late_s: float) -> float:
        """Return what a loop that never waits goes on with. See `_waiting.lagging`."""
        return lagging(self.session, ledger, entry, lr, late_s)

    def keep_unsent(self, ledger: Ledger[Any], cause: MlrsError) -> None:
        """Keep what a run that was to be finished lacks, as for the threaded client."""
        self.say(keep(ledger, str(self.addresses), self.unsent_dir, cause, finish=True))

    async def watch(self, request: Any, timeout_s: float | None) -> AsyncIterator[RecordChunk]:
        """Stream the record of a run; `timeout_s` bounds the whole, `None` does not."""
        self.check()
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
        """Let the streams end in good order, for at most `timeout_s`; then cancel what is left.

        May be called again. In a forked child it does nothing.
        """
        if os.getpid() != self._pid:
            return
        deadline = Deadline(self.timeout_s)
        ledgers = [] if self.session.closing else self.session.unstored()
        unstored = {ledger for ledger in ledgers if not await self._is_stored(ledger, deadline)}
        self.session.closing = True
        deadline = Deadline(self.timeout_s)
        tasks, fallen_off = list(self._tasks), self.session.fallen_off() | unstored
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
        for ledger in self.session.left_over(fallen_off):
            self.say(keep(ledger, str(self.addresses), self.unsent_dir, self.session.setbacks.get(ledger)))
        self.session.closed()

    async def _is_stored(self, ledger: Ledger[Any], deadline: Deadline) -> bool:
        """Have what the daemon has answered stored, as nobody could send it again; return whether it is."""
        try:
            if ledger.backlog.last_unanswered() is not None:
                await self.wait(settled(self.session, ledger, deadline))
            steps = []
            for run_id in ledger.run_ids:
                call, left_s = calls.get_run(run_id), max(deadline.left_s(), GRACE_S)
                steps.append((await self.invoke(call, left_s, self.session.home_of(ledger))).durable_step)
        except MlrsError:
            return False
        return ledger.stored(min(steps))

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
        """Carry out a procedure in a task of its own. See `Host`."""
        task = self._loop.create_task(self._in_background(procedure))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def attend(self, ledger: Ledger[Any]) -> None:
        """See to a run. See `Host`."""
        attended(self.session, ledger)

    def abandon(self, conversation: Conversation, error: MlrsError) -> None:
        """Give a stream up. See `Host`."""
        self.session.abandoned(conversation, error)

    def say(self, message: str) -> None:
        """Log a warning."""
        _logger.warning("%s", message)

    def announce(self, message: str) -> None:
        """Print a line for whoever started the program."""
        announce(message)

    async def _in_background(self, procedure: Procedure[None]) -> None:
        try:
            await self.perform(procedure)
        except ClosedError:
            pass
        except Exception:
            _logger.exception("a defect of mlrs_client; please report it")

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
