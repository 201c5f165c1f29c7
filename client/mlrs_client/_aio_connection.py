"""The asyncio client's channel: unary calls, procedures, and an end that never hangs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, TypeVar, cast

import grpc.aio

from mlrs_client import _arguments as check
from mlrs_client import _convert as convert
from mlrs_client._aio_stream import AdviceStream
from mlrs_client._calls import Call
from mlrs_client._channel import CHANNEL_OPTIONS
from mlrs_client._conversation import Conversation
from mlrs_client._exceptions import ClosedError, MlrsError
from mlrs_client._ledger import Ledger, Observed
from mlrs_client._session import Deadline, Procedure, Session, Wait, check_process
from mlrs_client._status import map_rpc_errors
from mlrs_client._types import RecordChunk
from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_proto.v1 import advisor_pb2_grpc as rpc

T = TypeVar("T")


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
    """One channel, one stream at a time, any number of tasks of one event loop.

    Attributes:
        target: the daemon's address.
        timeout_s: the deadline of a call that names none, in seconds.
        session: what `perform` performs comes from here.
    """

    def __init__(self, target: str, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.session = Session(target, self._open_stream)
        self._pid = os.getpid()
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub = rpc.AdvisorServiceStub(self._channel)
        self._streams: set[AdviceStream] = set()
        self._watches: set[Any] = set()
        self._catching_up: dict[Ledger[Any], asyncio.Task[None]] = {}

    def check(self) -> None:
        """Raise unless this process may use the connection, as for the threaded client."""
        check_process(self._pid)
        self.session.check_open()

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline of a call that begins now; `None`: the usual one."""
        return Deadline(self.timeout_s if timeout_s is None else check.timeout_s(timeout_s))

    async def invoke(self, call: Call[T], timeout_s: float) -> T:
        """Make a unary call.

        Raises:
            MlrsError: it failed.
        """
        self.check()
        try:
            with map_rpc_errors(self.target):
                return call.read(await getattr(self._stub, call.method)(call.request, timeout=timeout_s))
        except MlrsError:
            self.session.check_open()
            raise

    def catch_up(self, ledger: Ledger[Any], entry: Observed) -> None:
        """Have a run that fell off the stream join it again, in a task of its own; does not wait."""
        if ledger in self._catching_up or not self.session.is_cut_off(ledger):
            return

        async def work() -> None:
            deadline = self.deadline(None)
            with suppress(ClosedError):
                await self.perform(self.session.catch_up(ledger, entry, deadline), deadline)

        task = asyncio.get_running_loop().create_task(work())
        self._catching_up[ledger] = task
        task.add_done_callback(lambda _: self._catching_up.pop(ledger))

    async def perform(self, procedure: Procedure[T], deadline: Deadline) -> T:
        """Carry out a procedure of the session and return its result."""
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
                if isinstance(wanted, Wait):
                    await cast("Signal", wanted.ledger.changed).wait(wanted.timeout_s)
                    continue
                try:
                    outcome = await self.invoke(wanted, deadline.left_s())
                except MlrsError as error:
                    failure = error

    async def watch(self, request: pb.WatchRunRequest, timeout_s: float | None) -> AsyncIterator[RecordChunk]:
        """Stream the record of a run; `timeout_s` bounds the whole, `None` does not."""
        self.check()
        call = cast("Any", self._stub.WatchRun)(request, timeout=timeout_s)
        self._watches.add(call)
        try:
            with map_rpc_errors(self.target):
                async for message in call:
                    yield convert.chunk_from_proto(message)
        except MlrsError:
            self.session.check_open()
            raise
        finally:
            self._watches.discard(call)
            call.cancel()

    async def close(self) -> None:
        """Let the stream end in good order, for at most `timeout_s`; then cancel what is left.

        May be called again. In a forked child it does nothing.
        """
        if os.getpid() != self._pid:
            return
        self.session.closing = True
        deadline = Deadline(self.timeout_s)
        for watch in list(self._watches):
            watch.cancel()
        for stream in list(self._streams):
            await stream.close(deadline.left_s())
        await self._channel.close()

    def _open_stream(self, conversation: Conversation) -> AdviceStream:
        stream = AdviceStream(
            cast("Any", self._stub.StreamAdvice),
            partial(self.session.receive, conversation),
            partial(self._ended, conversation),
            self.target,
        )
        self._streams.add(stream)
        return stream

    def _ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        self._streams.discard(cast("AdviceStream", conversation.transport))
        self.session.ended(conversation, error)
