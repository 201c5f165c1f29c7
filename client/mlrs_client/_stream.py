"""The threaded client's end of a StreamAdvice stream: a queue that feeds it, and whoever reads it.

An answer that a thread waits for is read by that thread, if no other is reading: each hand-off between
threads costs a tenth of a round trip or more. A thread of the stream's own reads whatever nobody waits for
(answers that hide behind a backward pass), and sees to it that none who reads is kept beyond its patience.

An abandoned stream can hang Python at exit. It does not when it was read to its end; nor when it was
cancelled, its code read and its reader joined before the channel went. `close` sees to one or the
other.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

from mlrs_client._exceptions import DaemonError, MlrsError
from mlrs_client._status import map_rpc_errors
from mlrs_proto.v1 import advisor_pb2 as pb

JOIN_S: Final = 1.0
"""How long a cancelled stream's reader may take to notice."""
LEAST_PATIENCE_S: Final = 0.5
"""Who has less patience does not read: a stream whose reader ran out of it is given up."""
LOOK_S: Final = 0.1
"""How often the patience of those who read is looked at."""


class AdviceStream:
    """One stream.

    Args:
        start: starts the call, given its requests; returns the call, an iterator of responses.
        receive: is called with each response, in the thread that read it. An `MlrsError` of its ends the
            stream.
        ended: is called once, with the reason if it was not in good order, in the thread that read the end.
        owed: returns whether messages were sent that have no answer yet.
        target: the daemon's address, for messages.
    """

    def __init__(
        self,
        start: Callable[[Iterator[pb.StreamAdviceRequest]], Any],
        receive: Callable[[pb.StreamAdviceResponse], None],
        ended: Callable[[MlrsError | None], None],
        owed: Callable[[], bool],
        target: str,
    ) -> None:
        self._requests: SimpleQueue[tuple[pb.StreamAdviceRequest, bool] | None] = SimpleQueue()
        self._receive, self._ended, self._is_owed, self._target = receive, ended, owed, target
        self._reading = threading.Lock()  # whoever holds it may read
        self._over = False
        self._to_the_end = False
        self._until: float | None = None  # when the patience of a thread that reads by itself ends
        self._given_up = False
        self._kicks: SimpleQueue[None] = SimpleQueue()
        self._call = start(self._feed())
        self._reader = threading.Thread(target=self._read_on, name="mlrs-advice", daemon=True)
        self._reader.start()

    def send(self, message: pb.StreamAdviceRequest, *, attended: bool = False) -> None:
        """Send a message; does not wait.

        Args:
            message: observations.
            attended: whether the caller goes on to `read` the answer, or else kicks the reader.
        """
        self._requests.put((message, attended))

    def half_close(self) -> None:
        """Say that no more follow, and have the stream read to its end; does not wait."""
        self._to_the_end = True
        self._requests.put(None)
        self.kick()

    def kick(self) -> None:
        """Have the stream's own thread read, as long as answers are owed."""
        self._kicks.put(None)

    def may_read(self, patience_s: float) -> bool:
        """Return whether the caller is the one to `read`, which it then does; if not, another thread does.

        Asked under the lock that messages are sent and received under, so that no answer slips by between
        asking and waiting for word of it.
        """
        if self._over:
            return False
        if patience_s < LEAST_PATIENCE_S:
            self.kick()
            return False
        return self._reading.acquire(blocking=False)

    def read(self, patience_s: float) -> None:
        """Read a message in this thread, if one is owed; then another thread may.

        A stream on which nothing comes for so long is given up: it ends without a reason.
        """
        try:
            if self._over or not self._is_owed():
                return
            first, self._until = self._until is None, time.monotonic() + patience_s
            if first:
                self.kick()  # from now on somebody has to look at the patience
            self._read_message()
        finally:
            self._until = math.inf
            self.pass_on()

    def pass_on(self) -> None:
        """Let another thread read: the stream's own, if answers are owed to those who count on the caller."""
        self._reading.release()
        if self._is_owed():
            self.kick()

    def close(self, timeout_s: float) -> None:
        """Half-close and read to the end; if that takes longer than `timeout_s`, cancel."""
        self.half_close()
        self._reader.join(timeout_s)
        if self._reader.is_alive():
            self._call.cancel()
        self._call.code()
        self._reader.join(JOIN_S)

    def _feed(self) -> Iterator[pb.StreamAdviceRequest]:
        """Yield what is to be sent; in gRPC's thread, which spares the sender's the kick."""
        while (item := self._requests.get()) is not None:
            message, attended = item
            if not attended:
                self.kick()
            yield message

    def _read_on(self) -> None:
        """Read what nobody else does, until the end."""
        while not self._over:
            with suppress(Empty):
                self._kicks.get(timeout=self._look())
            while self._is_due():
                if not self._reading.acquire(timeout=self._look() or -1):
                    continue
                try:
                    if self._is_due():  # still, after another thread's turn
                        self._read_message()
                finally:
                    self._reading.release()

    def _is_due(self) -> bool:
        return not self._over and (self._to_the_end or self._is_owed())

    def _look(self) -> float | None:
        """Give the stream up if the patience of who reads has ended; return when to look again, in seconds.

        `None`: no need to look, as long as no thread but the stream's own has ever read.
        """
        until = self._until
        if until is None:
            return None
        left_s = until - time.monotonic()
        if left_s <= 0.0 and not self._given_up:
            self._given_up = True
            self._call.cancel()
        return min(max(left_s, 0.001), LOOK_S)

    def _read_message(self) -> None:
        """Read a message, or the end; by whoever holds `_reading`."""
        try:
            message = next(self._call, None)
            if message is None:
                self._end(None)
            else:
                self._receive(message)
        except Exception as failure:  # noqa: BLE001 # callers wait for whoever reads: it may not just die
            self._end(self._explained(failure))
        except BaseException:  # Ctrl-C in a thread that waited: what it was about to read is lost
            self._end(None)
            raise

    def _explained(self, failure: Exception) -> MlrsError:
        try:
            with map_rpc_errors(self._target):
                raise failure
        except MlrsError as error:
            return error
        except Exception as error:  # noqa: BLE001 # as above
            return DaemonError(f"an answer could not be read: {error!r}")

    def _end(self, error: MlrsError | None) -> None:
        self._over = True
        self._call.cancel()
        self.half_close()  # lets go of gRPC's thread that waits for requests
        self._ended(None if self._given_up else error)
