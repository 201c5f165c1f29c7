"""What happens between an observation and its advice, for both flavours of the client.

A session does no input or output of its own. What it wants done is left to its *host*, the threaded or the
asyncio connection. What takes time is a generator that says what it waits for, and there are two kinds:
callers wait (`_waiting.py`), and procedures make calls (`_routing.py`, `_joining.py`), in the background.
Waiting and joining again are independent: whoever waits looks only at whether the answer is here.

The threaded client holds one lock whenever it is in here. Its users' threads come here with observations
only; there, Ctrl-C raises between any two lines, so that what they do is always safe to do again.
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
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.opened import OpenedRun
from mlrs.ledger.start import Start, Way
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
"""Failures of joining, or of a stream, that say nothing against what was sent and may pass."""
MAX_ASKED = 64
"""The runs of a sweep that are asked for one by one, as its advisor is closed."""
DENIALS = (UnauthenticatedError, PermissionDeniedError)
"""Failures that may pass, too, if somebody sees to the token; until then a fallback goes on."""


_Key = tuple[str, Ledger[Any] | None]
"""Of a stream: the address, and the run that has it to itself, if one has."""


class Host(Protocol):
    """What a session needs of its connection. No call waits; each may come twice."""

    def open_transport(self, conversation: Conversation) -> Transport:
        """Open a stream to the conversation's address. Called in the background only."""

    def ensure_joined(self, ledger: Ledger[Any]) -> None:
        """Have `joining.ensure_joined` called for a run, in the background."""

    def start(self, procedure: Generator[Any, Any, None]) -> None:
        """Carry out a procedure. Called in the background only."""

    def abandon(self, conversation: Conversation, error: MlrsError) -> None:
        """Have `Session.abandoned` called for a conversation, in the background."""

    def say(self, message: str) -> None:
        """Log a warning."""

    def announce(self, message: str) -> None:
        """Print a line for whoever started the program."""


class Requests(Protocol):
    """The calls that a session makes, as the contract has them."""

    def opening(self, start: Start, way: Way, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
        """Open runs of a ledger, as many as one call may, from index `first` on."""

    def reopening(self, start: Start, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
        """Open runs again that were opened before, as many as one call may, from index `first` on."""

    def completing(self, start: Start, config: RunConfig, feeder: str) -> Call[tuple[OpenedRun, ...]]:
        """Add to the config of a run that was opened before."""

    def get_run(self, run_id: object) -> Call[RunInfo]:
        """Read a run."""

    def delete_run(self, run_id: object) -> Call[None]:
        """Delete a run and its record."""


def check_process(pid: int) -> None:
    """Raise unless this is the process of that id; called before any lock or channel is touched."""
    if os.getpid() != pid:
        raise ForkedError(
            "this advisor was made before the process forked, and gRPC connections do not survive that;"
            " connect again in the child"
        )


def announce(message: str) -> None:
    """Print a line on standard error, unless `MLRS_QUIET` is set and not 0."""
    if os.environ.get("MLRS_QUIET", "0") in ("", "0"):
        with suppress(OSError, ValueError):  # it may be closed
            sys.stderr.write(f"{message}\n")
            sys.stderr.flush()


class Session:
    """The open runs of one advisor, and a stream for each address at which one of them is.

    A run that waits for other ranks has a stream of its own: a daemon answers those of a stream in order.

    Attributes:
        addresses: the daemon's.
        timeout_s: how long a caller waits that says nothing else, in seconds.
        feeder: who sends the observations, as daemons know it: an id of this advisor's own.
        host: what does what the session wants done.
        requests: the calls that it makes.
        closing: whether the advisor takes nothing new.
        joining: the runs that are being joined again.
        setbacks: why each run was last cut off.
        backoffs: how long the next pause of each is before it is joined again.
        lost: the runs whose losses are kept though no daemon takes them.
        reopened: of sweeps that take several calls: where, and those opened so far.
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
        """Enter an observation and have it sent; waits for nothing.

        Args:
            ledger: the run's.
            step: its step.
            loss: its loss, or its losses.

        Returns:
            The entry, and whether it is new; if not, its advice is a replay.
        """
        self.check_open()
        entry, is_new = ledger.observe(step, loss)
        while ledger.remarks.news:
            self.host.say(ledger.remarks.news.pop(0))
        if is_new or not entry.done:  # again: an interrupt may have come between entering and sending
            self.send_or_join(ledger)
        return entry, is_new

    def adapt(
        self,
        ledger: Ledger[Any],
        step: int,
        alignments: Sequence[float],
        validation_losses: Sequence[float | None],
    ) -> Update:
        """Enter the meta update of a step and have it sent; waits for nothing."""
        self.check_open()
        update, is_new = ledger.adapt(step, alignments, validation_losses)
        if is_new or not update.done:  # again: as for an observation
            self.send_or_join(ledger)
        return update

    def add(self, ledger: Ledger[Any]) -> None:
        """Know of runs, that are not open yet."""
        self._ledgers.add(ledger)

    def fallen_off(self) -> set[Ledger[Any]]:
        """Return the runs on no stream of which a daemon may lack something."""
        return {
            ledger
            for ledger in [*self._ledgers, *self.lost]
            if ledger.backlog.has_volatile() and not ledger.is_finished and not self._has_stream(ledger)
        }

    def _has_stream(self, ledger: Ledger[Any]) -> bool:
        """Return whether the stream that answered a run, which its caller may have left since, goes on."""
        if self.conversation_of(ledger) is not None:
            return True
        return self._left_on.get(ledger) in self._conversations.values()

    def unstored(self) -> list[Ledger[Any]]:
        """Return the runs on a stream of which it is not known that all is stored.

        Of sweeps the small ones only: each run takes a call.
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
        """Return the runs of which a daemon may lack something once all streams have ended in good order.

        Args:
            before: those that were on no stream before.
        """
        waiting = {
            ledger for ledger in self._ledgers if ledger.backlog.last_unanswered() and not ledger.is_finished
        }
        return [
            ledger
            for ledger in {*before, *waiting}
            if ledger.standby.fallback is not None
            and (ledger.is_open or ledger.standby.outage is not None)  # else its training never went on
            and ledger.saved_at != ledger.next_step
            and ledger.unsent()
        ]

    def send_or_join(self, ledger: Ledger[Any]) -> None:
        """Have what a run has to send sent, on the stream or, if it fell off, once it has joined again."""
        conversation = self.conversation_of(ledger)
        if conversation is not None and conversation.transport is not None:
            conversation.transport.poke(ledger)
        elif ledger not in self.joining:
            self.host.ensure_joined(ledger)

    def want(self, ledger: Ledger[Any]) -> None:
        """Have a run join the stream though it has nothing to send."""
        self._wanted.add(ledger)
        self.send_or_join(ledger)

    def want_no_more(self, ledger: Ledger[Any]) -> None:
        """Have a run join the stream only if it has something to send."""
        self._wanted.discard(ledger)

    def needs_joining(self, ledger: Ledger[Any]) -> bool:
        """Return whether a run has fallen off, and there is something that it has to be on a stream for."""
        if self.closing or ledger.standby.is_lost or self.conversation_of(ledger) is not None:
            return False
        return ledger.backlog.last_unanswered() is not None or (ledger in self._wanted and not ledger.left)

    def forget(self, ledger: Ledger[Any]) -> None:
        """Let a run that its caller has left take part in no stream, once it has its answers."""
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
        """Let a run fall off its stream, as the daemon there is not the one that answered it."""
        conversation = self.conversation_of(ledger)
        if conversation is not None:
            conversation.leave(ledger)
            self._joined.pop(ledger, None)

    def conversation_of(self, ledger: Ledger[Any]) -> Conversation | None:
        """Return the conversation that a run takes part in, if any."""
        conversation = self._joined.get(ledger)
        return conversation if conversation is not None and conversation.has(ledger) else None

    def home_of(self, ledger: Ledger[Any]) -> str | None:
        """Return the address where a run was last."""
        return self._homes.get(ledger)

    def check_open(self) -> None:
        """Raise unless the advisor is open."""
        if self.closing:
            raise ClosedError("the advisor was closed; connect again")

    def closed(self) -> None:
        """Let everybody who waits see that the advisor was closed."""
        self.closing = True
        for ledger in list(self._homes):
            ledger.changed.notify_all()

    # --------------------------------------------------------------------- in the background

    def log_outage(self, ledger: Ledger[Any]) -> None:
        """Log what is new of a run's outage."""
        while ledger.standby.outage is not None and (news := ledger.standby.outage.news()):
            self.host.say(news)

    def opened(self, ledger: Ledger[Any], took_over: Sequence[str], address: str) -> None:
        """Take in that runs were opened for the first time, at an address; say what there is to say of it."""
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
            self.host.announce(f"mlrs: run {ledger.run_ids[0]} at {address}")
        if took_over:
            self.host.say(
                f"{ledger.label}: another process that is still connected sent its observations"
                f"{'' if ledger.size == 1 else f' (of {len(took_over)} of its runs)'}; from here on they are"
                " refused there and taken from this process. If both are to train, give each a run of its own"
            )

    def send_if_joined(self, ledger: Ledger[Any]) -> None:
        """Have what a run has to send sent, if it is on a stream by now."""
        conversation = self.conversation_of(ledger)
        if conversation is not None and conversation.transport is not None:
            conversation.transport.poke(ledger)

    def join(self, ledger: Ledger[Any], address: str) -> None:
        """Let a run that was opened at an address take part in the stream there; opens one if need be."""
        self.check_open()
        alone = None if ledger.rank is None else ledger  # what waits for other ranks keeps others waiting
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
        """Take in a message of a stream."""
        if isinstance(answer, Draining):
            error = UnavailableError(f"the daemon is stopping: {answer.message}")
            self.addresses.fails(conversation.address, timed_out=False)  # others first, if there are any
            self._dissolve(conversation, error)
            if conversation.transport is not None:
                conversation.transport.half_close()
            return
        ledger, setback, is_back = conversation.receive(answer)
        if setback is not None:
            self._fell_off(ledger, setback)
        elif ledger in self.backoffs:
            del self.backoffs[ledger]
            self.setbacks.pop(ledger, None)
        if is_back and ledger.standby.outage is not None:
            outage, ledger.standby.outage = ledger.standby.outage, None
            while news := outage.news():  # its beginning may not have been logged yet
                self.host.say(news)
            self.host.say(outage.end(ledger.standby.steps))
        if (news := ledger.store_news()) is not None:
            self.host.say(news)
        if ledger.left:
            self.forget(ledger)
        ledger.changed.notify_all()

    def ended(self, conversation: Conversation, error: MlrsError | None) -> None:
        """Take in that a stream has ended: what it left unanswered is sent on the next one.

        Args:
            conversation: the stream's.
            error: why it ended, if not in good order. One about what was sent refuses that. Others
                are taken to pass, and a new stream to cure them: a daemon that is full has room
                again, and when a connection breaks under a write, gRPC has been seen to call that an
                internal error.
        """
        if error is not None and not isinstance(error, (*PASSING, *DENIALS)):
            conversation.fail(error)
        if isinstance(error, UnavailableError):
            self.addresses.fails(conversation.address, timed_out=False)
        self._dissolve(conversation, error)

    def abandoned(self, conversation: Conversation, error: MlrsError) -> None:
        """Give a stream up whose daemon does not answer, as there are other addresses."""
        if self._conversations.get(conversation.key) is not conversation:
            return
        self.addresses.fails(conversation.address, timed_out=True)
        self._dissolve(conversation, error)
        if conversation.transport is not None:
            conversation.transport.cancel()

    def _dissolve(self, conversation: Conversation, setback: MlrsError | None) -> None:
        """Send nothing more on a stream; its runs fall off it."""
        if self._conversations.get(conversation.key) is conversation:
            del self._conversations[conversation.key]
        for ledger in conversation.dissolve():
            self._fell_off(ledger, setback)

    def _fell_off(self, ledger: Ledger[Any], setback: MlrsError | None) -> None:
        self._joined.pop(ledger, None)
        if setback is not None:
            self.setbacks[ledger] = setback
        if ledger not in self.joining and self.needs_joining(ledger):
            self.host.ensure_joined(ledger)
        ledger.changed.notify_all()
