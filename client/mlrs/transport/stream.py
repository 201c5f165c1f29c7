"""A StreamAdvice stream of the threaded client: a queue of what to send, and a thread that reads.

An open stream can hang Python at exit, unless it was read to its end; or it was cancelled, its status code
was read and its reader joined before the channel was closed. `close` does one or the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

from mlrs.errors import DaemonError, MlrsError
from mlrs.ledger.answers import Answer
from mlrs.ledger.ledger import Ledger
from mlrs.protocol.conversation import Batch
from mlrs.wire.status import map_rpc_errors
from mlrs.wire.stream_messages import answer_from_proto, batch_to_proto

JOIN_S: Final = 1.0
"""How long the reader of a cancelled stream may take to end, in seconds."""


class AdviceStream:
    """One stream. Made, cancelled and closed in the worker's thread; poked from any.

    Args:
        start: starts the call, given its requests; returns the call, an iterator of responses.
        take: returns what a run has to send, one message each. Called in gRPC's thread, just before sending.
        receive: is called with each answer, in the reader's thread. If it raises an `MlrsError`,
            the stream ends.
        ended: is called once, in the reader's thread, with the error if the stream did not end normally.
        target: the daemon's address, for messages.
    """

    def __init__(
        self,
        start: Callable[[Iterator[Any]], Any],
        take: Callable[[Ledger[Any]], list[Batch]],
        receive: Callable[[Answer], None],
        ended: Callable[[MlrsError | None], None],
        target: str,
    ) -> None:
        self._pokes: SimpleQueue[Ledger[Any] | None] = SimpleQueue()
        self._take, self._receive, self._ended, self._target = take, receive, ended, target
        self._call = start(self._feed())
        self._reader = threading.Thread(target=self._read, name="mlrs-advice", daemon=True)
        self._reader.start()

    def poke(self, ledger: Ledger[Any]) -> None:
        """Send what a run has to send; does not wait."""
        self._pokes.put(ledger)

    def half_close(self) -> None:
        """Half-close the stream; does not wait."""
        self._pokes.put(None)

    def cancel(self) -> None:
        """Cancel the stream."""
        self._call.cancel()

    def close(self, timeout_s: float) -> None:
        """Half-close and read to the end; if that takes longer than `timeout_s`, cancel."""
        self.half_close()
        self._reader.join(timeout_s)
        if self._reader.is_alive():
            self._call.cancel()
        self._call.code()
        self._reader.join(JOIN_S)

    def _feed(self) -> Iterator[Any]:
        while (ledger := self._pokes.get()) is not None:
            while batches := self._take(ledger):
                for batch in batches:
                    yield batch_to_proto(batch)

    def _read(self) -> None:
        error: MlrsError | None = None
        try:
            with map_rpc_errors(self._target):
                for message in self._call:
                    if (answer := answer_from_proto(message)) is not None:
                        self._receive(answer)
        except MlrsError as failure:
            error = failure
            self._call.cancel()
        except Exception as failure:  # noqa: BLE001 # callers wait for this thread: it may not just die
            error = DaemonError(f"an answer could not be read: {failure!r}")
            self._call.cancel()
        finally:
            self.half_close()  # ends gRPC's thread that waits for requests
            self._ended(error)
