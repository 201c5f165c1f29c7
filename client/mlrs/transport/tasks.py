"""Running procedures in the worker's thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Generic, TypeVar

from mlrs.errors import MlrsError, UnavailableError
from mlrs.protocol.routing import Attempt, Procedure
from mlrs.transport.links import Links
from mlrs.transport.signal import Reply
from mlrs.transport.worker import Worker
from mlrs.wire.status import map_rpc_errors

T = TypeVar("T")
_logger = logging.getLogger("mlrs")


class Task(Generic[T]):
    """A running procedure: makes the calls that it yields, and sends it their results. Worker's thread only.

    Args:
        procedure: the procedure.
        worker: runs it in its thread.
        links: the channels for its calls.
        lock: is held while the procedure runs, not while it waits.
        finished: is called at its end.
        reply: receives its result, if a caller waits for it.
    """

    def __init__(
        self,
        procedure: Procedure[T],
        worker: Worker,
        links: Links,
        lock: AbstractContextManager[Any],
        finished: Callable[[Task[Any]], None],
        reply: Reply[T] | None = None,
    ) -> None:
        self._procedure, self._worker, self._links, self._lock = procedure, worker, links, lock
        self._finished, self._reply = finished, reply
        self._is_done = False

    def advance(self, outcome: Any = None, failure: BaseException | None = None) -> None:
        """Continue with the result, or the error, of the last thing that the procedure yielded."""
        if self._is_done:
            return
        try:
            with self._lock:
                wanted = self._procedure.throw(failure) if failure else self._procedure.send(outcome)
        except StopIteration as stop:
            self._end(stop.value)
            return
        except Exception as error:  # noqa: BLE001 # for the caller
            self._end(None, error)
            return
        if isinstance(wanted, Attempt):
            self._call(wanted)
        else:
            self._worker.put_later(wanted.timeout_s, self.advance)

    def fail(self, error: MlrsError) -> None:
        """End the procedure with an error."""
        if not self._is_done:
            with self._lock:
                self._procedure.close()
            self._end(None, error)

    def _call(self, attempt: Attempt) -> None:
        try:
            method = self._links.method(attempt.address, attempt.call.method)
            future = method.future(
                attempt.call.payload(), timeout=attempt.timeout_s, metadata=self._links.metadata
            )
        except MlrsError as error:
            self._worker.put(partial(self.advance, None, error))
        except ValueError:  # a closed channel
            closed = UnavailableError(f"the connection to {attempt.address} was closed")
            self._worker.put(partial(self.advance, None, closed))
        else:
            future.add_done_callback(lambda done: self._worker.put(partial(self._called, attempt, done)))

    def _called(self, attempt: Attempt, future: Any) -> None:
        try:
            with map_rpc_errors(attempt.address):
                outcome = attempt.call.read(future.result())
        except Exception as error:  # noqa: BLE001 # for the procedure or the caller
            self.advance(None, error)
        else:
            self.advance(outcome)

    def _end(self, result: T | None, error: BaseException | None = None) -> None:
        self._is_done = True
        self._finished(self)
        if self._reply is not None:
            self._reply.settle(result, error)
        elif error is not None and not isinstance(error, MlrsError):
            _logger.error("a defect of mlrs; please report it", exc_info=error)
