"""The threaded client's channels: calls, procedures, and an end that never hangs.

Users' threads queue work and wait on C locks. All gRPC code runs in the client's own threads: the worker's,
and one for each stream that is read.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from mlrs.errors import ClosedError, DeadlineExceededError, MlrsError
from mlrs.ledger.answers import Answer
from mlrs.ledger.backlog import E
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.addresses import Addresses
from mlrs.protocol.conversation import Batch, Conversation
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.following import Following
from mlrs.protocol.joining import called, ensure_joined, stored
from mlrs.protocol.routing import Call, Procedure
from mlrs.protocol.session import announce
from mlrs.protocol.waiting import Action, Perform, Waiting, answered, patience_s, settled
from mlrs.transport.access import Access
from mlrs.transport.base_connection import GRACE_S, BaseConnection
from mlrs.transport.signal import Reply, Signal, held_lock
from mlrs.transport.stream import JOIN_S, AdviceStream
from mlrs.transport.tasks import Task
from mlrs.transport.watch import Watch
from mlrs.transport.worker import Worker
from mlrs.values.types import RecordChunk

T = TypeVar("T")
_logger = logging.getLogger("mlrs")


class Connection(BaseConnection):
    """Channels to a daemon's addresses, with one stream for each in use. Thread-safe."""

    def __init__(self, addresses: Addresses, access: Access, timeout_s: float, unsent_dir: str = "") -> None:
        super().__init__(
            addresses,
            access,
            timeout_s,
            unsent_dir,
            threading.Lock(),
            grpc.insecure_channel,
            grpc.secure_channel,
        )
        self._streams: set[AdviceStream] = set()
        self._watches: set[Watch] = set()
        self._tasks: set[Task[Any]] = set()
        self._is_closing = False  # in the worker's thread
        self._has_closed = held_lock()  # released at the end of the worker
        self._worker = Worker()
        weakref.finalize(self, self._worker.put, self._worker.stop).atexit = False
        _open_connections.add(self)

    def signal(self) -> Signal:
        """Return the signal that wakes the threads which wait for a new run."""
        return Signal()

    # ----------------------------------------------------------------------- users' threads

    def invoke(self, call: Call[T], timeout_s: float, home: str | None = None) -> T:
        """Make a unary call, first at the address `home` if that is given."""
        return self.perform(called(self.session, call, timeout_s, home), timeout_s)

    def act(self, action: Action[T]) -> T:
        """Run an action and return its result."""
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
                        outcome = self.perform(wanted.procedure, wanted.timeout_s)
                    else:
                        outcome = self.wait(wanted)
                except MlrsError as error:
                    failure = error

    def perform(self, procedure: Procedure[T], timeout_s: float) -> T:
        """Run a procedure of at most `timeout_s` seconds in the worker, and return its result."""
        self.check()
        reply: Reply[T] = Reply()
        self._worker.put(lambda: self._begin(procedure, reply))
        if not reply.wait(timeout_s + GRACE_S):
            self.check()
            raise DeadlineExceededError(
                f"daemon at {self.addresses}: no answer within {timeout_s:g} s; try again, or raise timeout_s"
            )
        return reply.result()

    def exchange(self, ledger: Ledger[E], step: int, loss: Any, deadline: Deadline) -> E:
        """Send an observation and wait until it is done: normally a single wait."""
        self.check()
        waiter = None
        with self._lock:
            entry, _ = self.session.observe(ledger, step, loss)
            if not entry.done and ledger.standby.outage is None:
                waiter = cast("Signal", ledger.changed).waiter()
        if waiter is not None:
            waiter.acquire(timeout=patience_s(self.session, deadline.timeout_s))
        if not entry.done:
            self.wait(answered(self.session, ledger, entry, deadline))
        return entry

    def wait(self, waiting: Waiting[T]) -> T:
        """Run a wait and return its result."""
        self.check()
        with closing(waiting):
            while True:
                with self._lock:
                    try:
                        wanted = next(waiting)
                    except StopIteration as stop:
                        return cast("T", stop.value)
                    signal = cast("Signal", wanted.ledger.changed)
                    waiter = signal.waiter()
                if not waiter.acquire(timeout=wanted.timeout_s):
                    with self._lock:
                        signal.forget(waiter)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Forget a run, and wait a while until everything about it was told. Does nothing in a fork."""
        super().leave(ledger)
        if ledger.listener is not None and os.getpid() == self._pid:
            end = ledger.listener.close if ledger.is_finished else ledger.listener.flush
            end(self.timeout_s)

    def watch(self, request: Any, timeout_s: float | None) -> Iterator[RecordChunk]:
        """Stream the record of a run; `timeout_s`: the deadline of the whole, `None`: none."""
        self.check()
        following = Following(self.addresses, request.from_step, timeout_s, self.timeout_s)

        def start() -> Any:
            method = self._links.method(following.address, "WatchRun")
            request.from_step = following.from_step
            return method(request, timeout=following.left_s(), metadata=self._links.metadata)

        watch = Watch(start, following)
        self._worker.put(lambda: self._begin_watch(watch))
        try:
            yield from watch.chunks()
        finally:
            self._worker.put(watch.cancel)
            self._watches.discard(watch)

    def close(self) -> None:
        """Close the streams, within `timeout_s`; then cancel what is left.

        May be called again, from any thread. Does nothing in a forked child.
        """
        if os.getpid() != self._pid:
            return
        unstored = self._wait_for_storing()
        self.session.closing = True
        self._worker.put(partial(self._close, unstored))
        if self._has_closed.acquire(timeout=self.timeout_s + 3 * JOIN_S):
            self._has_closed.release()
        deadline = Deadline(self.timeout_s)
        for listener in self.session.listeners():
            listener.close(deadline.left_s())
        _open_connections.discard(self)

    # --------------------------------------------------------------------- the worker's thread

    def open_transport(self, conversation: Conversation) -> AdviceStream:
        """Open a stream. See `Host`."""
        method = self._links.method(conversation.address, "StreamAdvice")
        stream = AdviceStream(
            partial(method, metadata=self._links.stream_metadata(self.session.feeder)),
            partial(self._take, conversation),
            partial(self._receive, conversation),
            partial(self._ended, conversation),
            conversation.address,
        )
        self._streams.add(stream)
        return stream

    def start(self, procedure: Procedure[None]) -> None:
        """Run a procedure. See `Host`."""
        task = Task(procedure, self._worker, self._links, self._lock, self._finished)
        self._tasks.add(task)
        self._worker.put(task.advance)

    def ensure_joined(self, ledger: Ledger[Any]) -> None:
        """Have a run join a stream if it needs one. See `Host`."""
        self._worker.put(partial(self._under_lock, ensure_joined, self.session, ledger))

    def abandon(self, conversation: Conversation, error: MlrsError) -> None:
        """Abandon a stream. See `Host`."""
        self._worker.put(partial(self._under_lock, self.session.abandoned, conversation, error))

    def say(self, message: str) -> None:
        """Log a warning, in the worker's thread."""
        self._worker.put(partial(_logger.warning, "%s", message))

    def announce(self, message: str) -> None:
        """Print a line on standard error, in the worker's thread."""
        self._worker.put(partial(announce, message))

    def _under_lock(self, work: Any, *arguments: Any) -> None:
        with self._lock:
            work(*arguments)

    def _begin(self, procedure: Procedure[T], reply: Reply[T]) -> None:
        if self.session.closing:
            reply.settle(None, ClosedError("the advisor was closed; connect again"))
            return
        task = Task(procedure, self._worker, self._links, self._lock, self._finished, reply)
        self._tasks.add(task)
        task.advance()

    def _finished(self, task: Task[Any]) -> None:
        self._tasks.discard(task)

    def _begin_watch(self, watch: Watch) -> None:
        if self.session.closing:
            watch.refuse()
            return
        self._watches.add(watch)
        watch.begin()

    def _wait_for_storing(self) -> list[Ledger[Any]]:
        """Wait until the daemon has stored its answers; return the runs of which it has not."""
        if self.session.closing:
            return []
        with self._lock:
            ledgers = self.session.unstored()
        deadline = Deadline(self.timeout_s)
        return [ledger for ledger in ledgers if not self._is_stored(ledger, deadline)]

    def _is_stored(self, ledger: Ledger[Any], deadline: Deadline) -> bool:
        try:
            if ledger.backlog.last_unanswered() is not None:
                self.wait(settled(self.session, ledger, deadline))
            left_s = max(deadline.left_s(), GRACE_S)
            return self.perform(stored(self.session, ledger, left_s), left_s)
        except MlrsError:
            return False

    def _close(self, unstored: Sequence[Ledger[Any]]) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        deadline = Deadline(self.timeout_s)
        with self._lock:
            streams, watches, tasks = list(self._streams), list(self._watches), list(self._tasks)
            off_stream = self.session.off_stream() | set(unstored)
        for task in tasks:
            task.fail(ClosedError("the advisor was closed; connect again"))
        for watch in watches:
            watch.cancel()
        for stream in streams:
            stream.half_close()
        for stream in streams:
            stream.close(deadline.left_s())
        for watch in watches:
            watch.close(JOIN_S)
        for channel in self._links.channels():
            with suppress(Exception):
                channel.close()
        with self._lock:
            for warning in self._saved_at_close(off_stream):
                _logger.warning("%s", warning)
            self.session.closed()
        self._worker.stop()
        self._has_closed.release()

    # ------------------------------------------------------------------- threads of the streams

    def _take(self, conversation: Conversation, ledger: Ledger[Any]) -> list[Batch]:
        with self._lock:
            return conversation.take(ledger)

    def _receive(self, conversation: Conversation, answer: Answer) -> None:
        with self._lock:
            self.session.receive(conversation, answer)

    def _ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        with self._lock:
            self._streams.discard(cast("AdviceStream", conversation.transport))
            self.session.ended(conversation, error)


_open_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close the connections that are open at exit, so that the process ends."""
    for connection in list(_open_connections):
        connection.close()
