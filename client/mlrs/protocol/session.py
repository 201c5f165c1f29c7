"""The state of an advisor between observations and advice, for threads and asyncio.

A session does no I/O. Its *host*, the threaded or the asyncio connection, does that for it. Everything that
takes time is a generator that yields what it waits for, of two kinds: users' calls wait (`waiting.py`), and
procedures make calls in the background (`routing.py`, `joining.py`). The two are independent: a waiting call
only checks whether its answer has arrived.

The threaded client holds one lock during every call here. Users' threads call `observe` and `adapt` here;
Ctrl-C can interrupt these between any two lines, so they can always be repeated.
"""

from __future__ import annotations

import os
import secrets
import sys
import weakref
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from mlrs.errors import (
    ClosedError,
    DaemonError,
    DeadlineExceededError,
    ForkedError,
    MemoryFullError,
    MlrsError,
    PermissionDeniedError,
    QueueFullError,
    TenantLimitError,
    UnauthenticatedError,
    UnavailableError,
)
from mlrs.ledger.answers import Answer, Draining
from mlrs.ledger.backlog import E
from mlrs.ledger.ledger import Ledger, Listening
from mlrs.ledger.open_request import Start, Way
from mlrs.ledger.open_result import OpenedRun
from mlrs.ledger.updates import Update
from mlrs.protocol.addresses import Addresses
from mlrs.protocol.conversation import Conversation, Transport
from mlrs.protocol.deadline import Backoff
from mlrs.protocol.routing import Call
from mlrs.values.types import RunConfig, RunInfo

PASSING = (
    UnavailableError,
    DeadlineExceededError,
    DaemonError,
    QueueFullError,
    MemoryFullError,
    TenantLimitError,
)
"""Temporary failures of joining, or of a stream: they do not refuse what was sent."""
MAX_ASKED = 64
"""The most runs of a sweep whose storage is checked, one call for each, when the advisor is closed."""
DENIALS = (UnauthenticatedError, PermissionDeniedError)
"""Failures that end when somebody replaces the token; until then the fallback answers."""


_Key = tuple[str, Ledger[Any] | None]
"""The key of a stream: its address, and its only run if it has one of its own."""


class Host(Protocol):
    """The I/O that a session leaves to its connection. No method waits; each may be called twice."""

    def open_transport(self, conversation: Conversation) -> Transport:
        """Open a stream to the conversation's address. Called in the background only."""

    def ensure_joined(self, ledger: Ledger[Any]) -> None:
        """Call `joining.ensure_joined` for a run, in the background."""

    def start(self, procedure: Generator[Any, Any, None]) -> None:
        """Run a procedure. Called in the background only."""

    def abandon(self, conversation: Conversation, error: MlrsError) -> None:
        """Call `Session.abandoned` for a conversation, in the background."""

    def say(self, message: str) -> None:
        """Log a warning."""

    def announce(self, message: str) -> None:
        """Print a line on standard error."""


class Requests(Protocol):
    """The unary calls that a session makes."""

    def opening(self, start: Start, way: Way, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
        """Open runs of a ledger, as many as one call may, from index `first` on."""

    def reopening(self, start: Start, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
        """Open runs again that were opened before, as many as one call may, from index `first` on."""

    def completing(
        self, start: Start, config: RunConfig, feeder: str, *, is_new: bool = False
    ) -> Call[tuple[OpenedRun, ...]]:
        """Add to the config of a run that was opened before; `is_new`: it has no observation."""

    def get_run(self, run_id: object) -> Call[RunInfo]:
        """Read a run."""

    def delete_run(self, run_id: object) -> Call[None]:
        """Delete a run and its record."""


def check_process(pid: int) -> None:
    """Raise `ForkedError` unless this process has the id; called before any lock or channel is used."""
    if os.getpid() != pid:
        raise ForkedError(
            "this advisor was made before the process forked, and gRPC connections do not survive that;"
            " connect again in the child"
        )


def is_loud() -> bool:
    """Return whether lines for people are printed: unless `MLRS_QUIET` is set to anything but 0."""
    return os.environ.get("MLRS_QUIET", "0") in ("", "0")


def announce(message: str) -> None:
    """Print a line on standard error, if `is_loud`."""
    if is_loud():
        with suppress(OSError, ValueError):  # standard error may be closed
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()


class Session:
    """The runs of one advisor, and a stream for each address where one of them is.

    A run that waits for other ranks has a stream of its own, because a daemon answers a stream in order.

    Attributes:
        addresses: the daemon's.
        timeout_s: the default deadline of a call, in seconds.
        feeder: the id by which daemons know this advisor as the sender of observations.
        host: does the session's I/O.
        requests: makes the session's unary calls.
        closing: whether the advisor is being closed.
        joining: the runs that are joining a stream.
        setbacks: the error for which each run last left its stream, or could not join one.
        backoffs: the pauses before each run joins again.
        lost: the runs that no daemon accepts any more, with losses for a file.
        reopened: for sweeps that are opened in several calls: the address, and the runs opened so far.
    """

    def __init__(self, addresses: Addresses, timeout_s: float, host: Host, requests: Requests) -> None:
        self.addresses = addresses
        self.timeout_s = timeout_s
        self.feeder = secrets.token_hex(8)
        self.host = host
        self.requests = requests
        self.closing = False
        self.joining: set[Ledger[Any]] = set()
        self.setbacks: weakref.WeakKeyDictionary[Ledger[Any], MlrsError] = weakref.WeakKeyDictionary()
        self.backoffs: dict[Ledger[Any], Backoff] = {}
        self.reopened: weakref.WeakKeyDictionary[Ledger[Any], tuple[str, list[OpenedRun]]] = (
            weakref.WeakKeyDictionary()
        )
        self.lost: set[Ledger[Any]] = set()
        self._ledgers: weakref.WeakSet[Ledger[Any]] = weakref.WeakSet()
        self._conversations: dict[_Key, Conversation] = {}
        self._joined: dict[Ledger[Any], Conversation] = {}
        self._left_on: weakref.WeakKeyDictionary[Ledger[Any], Conversation] = weakref.WeakKeyDictionary()
        self._wanted: weakref.WeakSet[Ledger[Any]] = weakref.WeakSet()
        self._homes: weakref.WeakKeyDictionary[Ledger[Any], str] = weakref.WeakKeyDictionary()

    # ------------------------------------------------------------------------------ runs

    def observe(self, ledger: Ledger[E], step: int, loss: Any) -> tuple[E, bool]:
        """Enter an observation and send it; does not wait.

        Args:
            ledger: the run's.
            step: its step.
            loss: its loss, or its losses.

        Returns:
            The entry, and whether it is new; otherwise its advice is a replay.
        """
        self.check_open()
        entry, is_new = ledger.observe(step, loss)
        while ledger.remarks.news:
            self.host.say(ledger.remarks.news.pop(0))
        if is_new or not entry.done:  # again: Ctrl-C may have come between entering and sending
            self.send_or_join(ledger)
        return entry, is_new

    def adapt(
        self,
        ledger: Ledger[Any],
        step: int,
        alignments: Sequence[float],
        validation_losses: Sequence[float | None],
    ) -> Update:
        """Enter the meta update of a step and send it; does not wait."""
        self.check_open()
        update, is_new = ledger.adapt(step, alignments, validation_losses)
        if is_new or not update.done:  # again: as in `observe`
            self.send_or_join(ledger)
        return update

    def add(self, ledger: Ledger[Any]) -> None:
        """Add runs, which are not open yet."""
        self._ledgers.add(ledger)

    def listeners(self) -> list[Listening]:
        """Return what is told about the advice of runs."""
        return [ledger.listener for ledger in self._ledgers if ledger.listener is not None]

    def off_stream(self) -> set[Ledger[Any]]:
        """Return the runs that are on no stream and of which a daemon may lack observations."""
        return {
            ledger
            for ledger in [*self._ledgers, *self.lost]
            if ledger.backlog.has_volatile() and not ledger.is_finished and not self._has_stream(ledger)
        }

    def _has_stream(self, ledger: Ledger[Any]) -> bool:
        """Return whether the stream that answered a run is open, also after the caller left the run."""
        if self.conversation_of(ledger) is not None:
            return True
        return self._left_on.get(ledger) in self._conversations.values()

    def unstored(self) -> list[Ledger[Any]]:
        """Return the runs on a stream whose observations may not all be stored.

        Without large sweeps, since each run takes a call.
        """
        return [
            ledger
            for ledger in self._ledgers
            if ledger.backlog.has_volatile()
            and not ledger.is_finished
            and ledger.standby.fallback is not None
            and ledger.rank is None
            and ledger.standby.outage is None
            and ledger.size <= MAX_ASKED
            and self._has_stream(ledger)
        ]

    def left_over(self, before: Iterable[Ledger[Any]]) -> list[Ledger[Any]]:
        """Return the runs of which a daemon may lack observations after all streams were closed.

        Args:
            before: the runs that were on no stream before.
        """
        waiting = {
            ledger for ledger in self._ledgers if ledger.backlog.last_unanswered() and not ledger.is_finished
        }
        return [
            ledger
            for ledger in {*before, *waiting}
            if ledger.standby.fallback is not None
            and (ledger.is_open or ledger.standby.outage is not None)  # otherwise its training never began
            and ledger.saved_at != ledger.next_step
            and ledger.unsent()
        ]

    def send_or_join(self, ledger: Ledger[Any]) -> None:
        """Send what a run has to send, on its stream or, if it has none, after it has joined one."""
        conversation = self.conversation_of(ledger)
        if conversation is not None and conversation.transport is not None:
            conversation.transport.poke(ledger)
        elif ledger not in self.joining:
            self.host.ensure_joined(ledger)

    def want(self, ledger: Ledger[Any]) -> None:
        """Have a run join a stream even if it has nothing to send."""
        self._wanted.add(ledger)
        self.send_or_join(ledger)

    def want_no_more(self, ledger: Ledger[Any]) -> None:
        """Have a run join a stream only if it has something to send."""
        self._wanted.discard(ledger)

    def needs_joining(self, ledger: Ledger[Any]) -> bool:
        """Return whether a run is on no stream and needs one."""
        if self.closing or ledger.standby.is_lost or self.conversation_of(ledger) is not None:
            return False
        return ledger.backlog.last_unanswered() is not None or (ledger in self._wanted and not ledger.left)

    def forget(self, ledger: Ledger[Any]) -> None:
        """Remove a run that its caller has left from its stream, once everything is answered."""
        ledger.left = True
        conversation = self.conversation_of(ledger)
        if conversation is not None and ledger.backlog.last_unanswered() is None:
            conversation.leave(ledger)
            self._left_on[ledger] = conversation
            self._joined.pop(ledger, None)
            self.backoffs.pop(ledger, None)
            if conversation.alone is ledger:
                self._conversations.pop(conversation.key, None)
                if conversation.transport is not None:
                    conversation.transport.half_close()

    def leave_stream(self, ledger: Ledger[Any]) -> None:
        """Remove a run from its stream, because the daemon there is not the one that answered it."""
        conversation = self.conversation_of(ledger)
        if conversation is not None:
            conversation.leave(ledger)
            self._joined.pop(ledger, None)

    def conversation_of(self, ledger: Ledger[Any]) -> Conversation | None:
        """Return the conversation that a run has joined, if any."""
        conversation = self._joined.get(ledger)
        return conversation if conversation is not None and conversation.has(ledger) else None

    def home_of(self, ledger: Ledger[Any]) -> str | None:
        """Return the last address of a run, if it has one."""
        return self._homes.get(ledger)

    def check_open(self) -> None:
        """Raise `ClosedError` unless the advisor is open."""
        if self.closing:
            raise ClosedError("the advisor was closed; connect again")

    def closed(self) -> None:
        """Wake all callers, which then see that the advisor is closed."""
        self.closing = True
        for ledger in list(self._homes):
            ledger.changed.notify_all()

    # --------------------------------------------------------------------- in the background

    def log_outage(self, ledger: Ledger[Any]) -> None:
        """Log the state of a run's outage, where that has changed."""
        while ledger.standby.outage is not None and (news := ledger.standby.outage.news()):
            self.host.say(news)

    def opened(self, ledger: Ledger[Any], took_over: Sequence[str], address: str) -> None:
        """Process that runs were opened for the first time, at an address; announce and log it."""
        for other in list(self._ledgers):
            if (
                other is not ledger
                and other.is_open
                and other.run_ids == ledger.run_ids
                and other.rank is None
            ):
                self.leave_stream(other)
                if not other.is_finished:
                    other.replaced()
                    other.changed.notify_all()
        if not ledger.start.is_named:
            run_id = ledger.run_ids[0]
            page = self.addresses.where_to_look(run_id)
            look = f" (mlrs runs watch {run_id}; {page})" if page else ""
            self.host.announce(f"mlrs: run {run_id} at {address}{look}")
        self.recalled(ledger)
        if took_over:
            self.host.say(
                f"{ledger.label}: another process that is still connected sent its observations"
                f"{'' if ledger.size == 1 else f' (of {len(took_over)} of its runs)'}; from here on they are"
                " refused there and taken from this process. If both are to train, give each a run of its own"
            )

    def recalled(self, ledger: Ledger[Any]) -> None:
        """Announce, once, what the memory of its task decided for a run that was created here."""
        if news := ledger.memory_news():
            self.host.announce(f"mlrs: run {ledger.run_ids[0]}: {news}")

    def send_if_joined(self, ledger: Ledger[Any]) -> None:
        """Send what a run has to send, if it is on a stream."""
        conversation = self.conversation_of(ledger)
        if conversation is not None and conversation.transport is not None:
            conversation.transport.poke(ledger)

    def join(self, ledger: Ledger[Any], address: str) -> None:
        """Let a run that was opened at an address join the stream there; opens one if there is none."""
        self.check_open()
        alone = None if ledger.rank is None else ledger  # its wait for other ranks would delay other runs
        conversation = self._conversations.get((address, alone))
        if conversation is None:
            conversation = Conversation(address, alone)
            conversation.transport = self.host.open_transport(conversation)
            self._conversations[conversation.key] = conversation
        conversation.join(ledger)
        self._homes[ledger] = address
        self._joined[ledger] = conversation
        self._wanted.discard(ledger)
        self.send_if_joined(ledger)

    def receive(self, conversation: Conversation, answer: Answer) -> None:
        """Process a message of a stream."""
        if isinstance(answer, Draining):
            error = UnavailableError(f"the daemon is stopping: {answer.message}")
            self.addresses.fails(conversation.address, timed_out=False)  # prefer other replicas
            self._dissolve(conversation, error)
            if conversation.transport is not None:
                conversation.transport.half_close()
            return
        ledger, setback, is_back = conversation.receive(answer)
        if setback is not None:
            self._left_stream(ledger, setback)
        elif ledger in self.backoffs:
            del self.backoffs[ledger]
            self.setbacks.pop(ledger, None)
        if is_back and ledger.standby.outage is not None:
            outage, ledger.standby.outage = ledger.standby.outage, None
            while news := outage.news():  # its beginning may not be logged yet
                self.host.say(news)
            self.host.say(outage.end(ledger.standby.steps))
        if (news := ledger.store_news()) is not None:
            self.host.say(news)
        if ledger.left:
            self.forget(ledger)
        ledger.changed.notify_all()

    def ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        """Process the end of a stream: what it left unanswered is sent on the next one.

        Args:
            conversation: the stream's.
            error: why it ended; `None`: it was closed normally. A permanent error refuses what was sent.
                Other errors are temporary, and a new stream is opened: a full daemon has capacity later, and
                gRPC may report a broken connection as an internal error.
        """
        if error is not None and not isinstance(error, (*PASSING, *DENIALS)):
            conversation.fail(error)
        if isinstance(error, UnavailableError):
            self.addresses.fails(conversation.address, timed_out=False)
        self._dissolve(conversation, error)

    def abandoned(self, conversation: Conversation, error: MlrsError) -> None:
        """Abandon a stream whose daemon does not answer, since there are other addresses."""
        if self._conversations.get(conversation.key) is not conversation:
            return
        self.addresses.fails(conversation.address, timed_out=True)
        self._dissolve(conversation, error)
        if conversation.transport is not None:
            conversation.transport.cancel()

    def _dissolve(self, conversation: Conversation, setback: MlrsError | None) -> None:
        """Send nothing more on a stream; its runs leave it."""
        if self._conversations.get(conversation.key) is conversation:
            del self._conversations[conversation.key]
        for ledger in conversation.dissolve():
            self._left_stream(ledger, setback)

    def _left_stream(self, ledger: Ledger[Any], setback: MlrsError | None) -> None:
        self._joined.pop(ledger, None)
        if setback is not None:
            self.setbacks[ledger] = setback
        if ledger not in self.joining and self.needs_joining(ledger):
            self.host.ensure_joined(ledger)
        ledger.changed.notify_all()
