"""The common part of the threaded and the asyncio connection: all that does not wait."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from mlrs.errors import MlrsError
from mlrs.ledger.backlog import E
from mlrs.ledger.entries import Entry
from mlrs.ledger.ledger import Ledger, Wakeable
from mlrs.ledger.updates import Update
from mlrs.protocol.addresses import Addresses
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.session import Host, Session, check_process
from mlrs.protocol.waiting import lagging
from mlrs.transport.access import Access
from mlrs.transport.forks import prepare_for_forks
from mlrs.transport.links import Links
from mlrs.values import arguments as check
from mlrs.wire import calls
from mlrs.wire.unsent import keep

T = TypeVar("T")
GRACE_S = 0.05
"""Additional time after a deadline, in seconds: for its error to arrive, or for a call while closing."""


class BaseConnection(Host):
    """Channels to a daemon's addresses, and the session whose I/O they do.

    Attributes:
        addresses: the daemon's.
        timeout_s: the default deadline of a call, in seconds.
        session: the state of the runs.
        unsent_dir: the folder for files of unsent observations; empty: no files are written.
    """

    def __init__(
        self,
        addresses: Addresses,
        access: Access,
        timeout_s: float,
        unsent_dir: str,
        lock: AbstractContextManager[Any],
        open_plain: Callable[..., Any],
        open_secure: Callable[..., Any],
    ) -> None:
        """`lock`: held during every call of the session; the last two open channels, see `Links`."""
        prepare_for_forks()
        self.addresses = addresses
        self.timeout_s = timeout_s
        self.session = Session(self.addresses, timeout_s, self, calls)
        self.unsent_dir = unsent_dir
        self._pid = os.getpid()
        self._lock = lock
        self._links = Links(open_plain, open_secure, access)

    @abstractmethod
    def signal(self) -> Wakeable:
        """Return what callers that wait for a new run are woken by."""

    def check(self) -> None:
        """Raise `ForkedError` or `ClosedError` unless this process may use the connection."""
        check_process(self._pid)
        self.session.check_open()

    def check_process(self) -> None:
        """Raise `ForkedError` if this process is a fork of the one that made the connection."""
        check_process(self._pid)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """Return the deadline of a call that begins now; `None`: the advisor's."""
        return Deadline(self.timeout_s if timeout_s is None else check.timeout_s(timeout_s))

    def deadline_of(self, ledger: Ledger[Any], timeout_s: float | None) -> Deadline:
        """Return the deadline of a call about runs that begins now; `None`: that of the runs."""
        deadline = self.deadline(ledger.patience_s(timeout_s))
        if timeout_s is None and not ledger.is_open:
            deadline.reach_s = ledger.start.timeout_s
        return deadline

    def leave(self, ledger: Ledger[Any]) -> None:
        """Forget a run. Does nothing in a forked child, which must not wait for the parent's lock."""
        if os.getpid() == self._pid:
            with self._lock:
                self.session.forget(ledger)

    def locked(self, work: Callable[[], T]) -> T:
        """Call a function on the session's ledgers under the lock; the function must not wait."""
        self.check()
        with self._lock:
            return work()

    def observe(self, ledger: Ledger[E], step: int, loss: Any) -> tuple[E, bool]:
        """Send an observation; does not wait. See `Session.observe`."""
        self.check()
        with self._lock:
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
        with self._lock:
            return self.session.adapt(ledger, step, alignments, validation_losses)

    def lagging(self, ledger: Ledger[Any], entry: Entry, lr: float, late_s: float) -> float:
        """Return the learning rate for a loop that never waits. See `waiting.lagging`."""
        with self._lock:
            return lagging(self.session, ledger, entry, lr, late_s)

    def keep_unsent(self, ledger: Ledger[Any], cause: MlrsError) -> None:
        """Write a file with what the daemon lacks of a run, with its end, and log a warning."""
        with self._lock:
            self.say(keep(ledger, str(self.addresses), self.unsent_dir, cause, finish=True))

    def _saved_at_close(self, off_stream: Iterable[Ledger[Any]]) -> Iterator[str]:
        """Write files with what daemons may lack after all streams have ended; yield the warnings."""
        for ledger in self.session.left_over(off_stream):
            yield keep(ledger, str(self.addresses), self.unsent_dir, self.session.setbacks.get(ledger))
