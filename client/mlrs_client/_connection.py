"""The threaded client's channel: unary calls, procedures, and an end that never hangs."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from mlrs_client import _arguments as check
from mlrs_client import _convert as convert
from mlrs_client._calls import Call
from mlrs_client._channel import CHANNEL_OPTIONS
from mlrs_client._conversation import Conversation
from mlrs_client._exceptions import ClosedError, MlrsError
from mlrs_client._ledger import E, Ledger, Observed
from mlrs_client._session import Deadline, Procedure, Session, Wait, check_process
from mlrs_client._status import map_rpc_errors
from mlrs_client._stream import AdviceStream
from mlrs_client._types import RecordChunk
from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_proto.v1 import advisor_pb2_grpc as rpc

T = TypeVar("T")


class Connection:
    """One channel, one stream at a time, any number of threads.

    Attributes:
        target: the daemon's address.
        timeout_s: the deadline of a call that names none, in seconds.
        session: what `perform` performs comes from here.
    """

    def __init__(self, target: str, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._pid = os.getpid()
        self._channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub = rpc.AdvisorServiceStub(self._channel)
        self._lock = threading.Lock()
        self.session = Session(target, self._open_stream)
        self._streams: set[AdviceStream] = set()
        self._watches: set[Any] = set()
        self._catching_up: set[Ledger[Any]] = set()
        _open_connections.add(self)

    def new_signal(self) -> threading.Condition:
        """Return what a ledger of this connection notifies."""
        return threading.Condition(self._lock)

    def check(self) -> None:
        """Raise unless this process may use the connection.

        Raises:
            ForkedError: the process is a fork of the one that made it.
            ClosedError: the connection was closed.
        """
        check_process(self._pid)
        self.session.check_open()

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline of a call that begins now; `None`: the usual one."""
        return Deadline(self.timeout_s if timeout_s is None else check.timeout_s(timeout_s))

    def invoke(self, call: Call[T], timeout_s: float) -> T:
        """Make a unary call.

        Raises:
            MlrsError: it failed.
        """
        self.check()
        try:
            with map_rpc_errors(self.target):
                return call.read(getattr(self._stub, call.method)(call.request, timeout=timeout_s))
        except (MlrsError, ValueError):  # a closed channel raises ValueError
            self.session.check_open()
            raise

    def join(self, ledger: Ledger[Any]) -> None:
        """Let a run that was just opened take part in the stream."""
        self.check()
        with self._lock:
            self.session.join(ledger)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Forget a run. In a forked child: nothing, as no lock of the parent's may be waited for."""
        if os.getpid() == self._pid:
            with self._lock:
                self.session.forget(ledger)

    def observe(self, ledger: Ledger[E], step: int, loss: Any) -> tuple[E, bool]:
        """Send an observation; does not wait. See `Session.observe`."""
        self.check()
        with self._lock:
            return self.session.observe(ledger, step, loss)

    def exchange(self, ledger: Ledger[E], step: int, loss: Any, deadline: Deadline) -> E:
        """Send an observation and wait until it is done: usually one wait, and no procedure."""
        self.check()
        with self._lock:
            entry, _ = self.session.observe(ledger, step, loss)
            if not entry.done and not self.session.is_cut_off(ledger):
                cast("threading.Condition", ledger.changed).wait(deadline.timeout_s)
        if not entry.done:
            self.perform(self.session.answered(ledger, entry, deadline), deadline)
        return entry

    def catch_up(self, ledger: Ledger[Any], entry: Observed) -> None:
        """Have a run that fell off the stream join it again, in a thread of its own; does not wait."""
        with self._lock:
            if ledger in self._catching_up or not self.session.is_cut_off(ledger):
                return
            self._catching_up.add(ledger)

        def work() -> None:
            deadline = self.deadline(None)
            try:
                self.perform(self.session.catch_up(ledger, entry, deadline), deadline)
            except ClosedError:
                pass
            finally:
                self._catching_up.discard(ledger)

        threading.Thread(target=work, name="mlrs-catch-up", daemon=True).start()

    def perform(self, procedure: Procedure[T], deadline: Deadline) -> T:
        """Carry out a procedure of the session and return its result."""
        self.check()
        with self._lock, closing(procedure):
            outcome: Any = None
            failure: MlrsError | None = None
            while True:
                try:
                    wanted = procedure.throw(failure) if failure else procedure.send(outcome)
                except StopIteration as stop:
                    return cast("T", stop.value)
                outcome, failure = None, None
                if isinstance(wanted, Wait):
                    cast("threading.Condition", wanted.ledger.changed).wait(wanted.timeout_s)
                    continue
                self._lock.release()
                try:
                    outcome = self.invoke(wanted, deadline.left_s())
                except MlrsError as error:
                    failure = error
                finally:
                    self._lock.acquire()

    def watch(self, request: pb.WatchRunRequest, timeout_s: float | None) -> Iterator[RecordChunk]:
        """Stream the record of a run; `timeout_s` bounds the whole, `None` does not."""
        self.check()
        call = self._stub.WatchRun(request, timeout=timeout_s)
        self._watches.add(call)
        try:
            with map_rpc_errors(self.target):
                for message in call:
                    yield convert.chunk_from_proto(message)
        except MlrsError:
            self.session.check_open()
            raise
        finally:
            self._watches.discard(call)
            call.cancel()

    def close(self) -> None:
        """Let the stream end in good order, for at most `timeout_s`; then cancel what is left.

        May be called again, from any thread. In a forked child it does nothing.
        """
        if os.getpid() != self._pid:
            return
        _open_connections.discard(self)
        with self._lock:
            self.session.closing = True
            streams, watches = list(self._streams), list(self._watches)
        deadline = Deadline(self.timeout_s)
        for watch in watches:
            watch.cancel()
        for stream in streams:
            stream.close(deadline.left_s())
        self._channel.close()

    def _open_stream(self, conversation: Conversation) -> AdviceStream:
        stream = AdviceStream(
            self._stub.StreamAdvice,
            partial(self._receive, conversation),
            partial(self._ended, conversation),
            self.target,
        )
        self._streams.add(stream)
        return stream

    def _receive(self, conversation: Conversation, message: pb.StreamAdviceResponse) -> None:
        with self._lock:
            self.session.receive(conversation, message)

    def _ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        with self._lock:
            self._streams.discard(cast("AdviceStream", conversation.transport))
            self.session.ended(conversation, error)


_open_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what scripts forgot to close, so that they exit."""
    for connection in list(_open_connections):
        connection.close()
