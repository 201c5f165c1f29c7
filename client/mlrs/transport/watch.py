"""A WatchRun stream of the threaded client, read by a thread because gRPC is not safe for Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from mlrs.errors import ClosedError, MlrsError
from mlrs.protocol.following import Following
from mlrs.values.types import RecordChunk
from mlrs.wire.convert import chunk_from_proto
from mlrs.wire.status import map_rpc_errors

AHEAD: Final = 16
"""How many messages are read ahead of the caller."""


class Watch:
    """The stream of one record.

    Args:
        start: starts a call at the position of `following`.
        following: the reading position.
    """

    def __init__(self, start: Callable[[], Any], following: Following) -> None:
        self._start, self._following = start, following
        self._chunks: SimpleQueue[RecordChunk | BaseException | None] = SimpleQueue()
        self._credits: SimpleQueue[None] = SimpleQueue()
        for _ in range(AHEAD):
            self._credits.put(None)
        self._call: Any = None
        self._cancelled = False
        self._thread = threading.Thread(target=self._read, name="mlrs-watch", daemon=True)

    def begin(self) -> None:
        """Start to read. Called in the worker's thread."""
        self._thread.start()

    def chunks(self) -> Iterator[RecordChunk]:
        """Iterate over the messages. Called in the user's thread."""
        while (chunk := self._chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            self._credits.put(None)
            yield chunk

    def refuse(self) -> None:
        """End a stream that was not begun, because the advisor was closed."""
        self._chunks.put(_closed())

    def cancel(self) -> None:
        """Cancel the stream. Called in the worker's thread."""
        self._cancelled = True
        self._credits.put(None)
        if self._call is not None:
            self._call.cancel()

    def close(self, timeout_s: float) -> None:
        """Cancel the stream and wait for its thread."""
        self.cancel()
        self._thread.join(timeout_s)

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            self._attempts()
        except Exception as failure:  # noqa: BLE001 # for the caller, who waits for this thread
            error = _closed() if self._cancelled else failure
        self._chunks.put(error)

    def _attempts(self) -> None:
        while True:
            try:
                self._attempt()
            except MlrsError as error:
                if self._cancelled:
                    raise
                time.sleep(self._following.broke(error))
            else:
                return

    def _attempt(self) -> None:
        with map_rpc_errors(self._following.address):
            self._call = self._start()
            if self._cancelled:
                self._call.cancel()
            for message in self._call:
                if (chunk := self._following.take(chunk_from_proto(message))) is None:
                    continue
                self._credits.get()
                if self._cancelled:
                    self._call.cancel()
                    return
                self._chunks.put(chunk)


def _closed() -> ClosedError:
    return ClosedError("the advisor was closed; connect again")
