"""The threaded client's end of a WatchRun stream: a thread reads it, as gRPC is not safe for Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from mlrs_client import _convert as convert
from mlrs_client._exceptions import ClosedError, MlrsError
from mlrs_client._routing import Route
from mlrs_client._status import map_rpc_errors
from mlrs_client._types import RecordChunk

AHEAD: Final = 16
"""How many messages are read before the caller takes one."""


class Watch:
    """One record, as it streams in.

    Args:
        start: starts the call at an address.
        route: where to call, and where else if that fails before anything came.
    """

    def __init__(self, start: Callable[[str], Any], route: Route) -> None:
        self._start, self._route = start, route
        self._chunks: SimpleQueue[RecordChunk | BaseException | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._call: Any = None
        self._cancelled = False
        self._thread = threading.Thread(target=self._read, name="mlrs-watch", daemon=True)

    def begin(self) -> None:
        """Start to read. In the worker's thread."""
        self._thread.start()

    def chunks(self) -> Iterator[RecordChunk]:
        """Iterate over what comes in. In the caller's thread."""
        while (chunk := self._chunks.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            self._room.put(None)
            yield chunk

    def refuse(self) -> None:
        """Say that the advisor was closed before this began."""
        self._chunks.put(_closed())

    def cancel(self) -> None:
        """End it. In the worker's thread."""
        self._cancelled = True
        self._room.put(None)
        if self._call is not None:
            self._call.cancel()

    def close(self, timeout_s: float) -> None:
        """End it, and see its thread end."""
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
                self._attempt(self._route.address)
            except _BeforeTheFirstError as failure:
                time.sleep(self._route.failed(failure.error))
            else:
                return

    def _attempt(self, address: str) -> None:
        has_begun = False
        try:
            with map_rpc_errors(address):
                self._call = self._start(address)
                if self._cancelled:
                    self._call.cancel()
                for message in self._call:
                    if not has_begun:
                        self._route.works()
                        has_begun = True
                    self._room.get()
                    if self._cancelled:
                        self._call.cancel()
                        return
                    self._chunks.put(convert.chunk_from_proto(message))
        except MlrsError as error:
            if has_begun or self._cancelled:
                raise
            raise _BeforeTheFirstError(error) from error


def _closed() -> ClosedError:
    return ClosedError("the advisor was closed; connect again")


class _BeforeTheFirstError(Exception):
    """A failure before anything came: another address may do better."""

    def __init__(self, error: MlrsError) -> None:
        super().__init__(str(error))
        self.error = error
