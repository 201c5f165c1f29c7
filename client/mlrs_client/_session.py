"""What happens between an observation and its advice, for both flavours of the client.

A session does no input or output of its own. What has to wait is a *procedure*: a generator that
yields what it waits for (a `Wait`, or a `Call`) and returns its result. The threaded and the asyncio
client each have a short loop that performs these; the rules are written once, here.

The threaded client holds one lock whenever it is in here, and lets go of it while it waits.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mlrs_client._calls import Call, Opened, OpenedRun, finish, open_run, reopen
from mlrs_client._conversation import Conversation, Transport
from mlrs_client._exceptions import (
    ClosedError,
    DaemonError,
    DeadlineExceededError,
    ForkedError,
    MemoryFullError,
    MlrsError,
    QueueFullError,
    RunFinishedError,
    UnavailableError,
)
from mlrs_client._ledger import E, Ledger, Observed
from mlrs_client._types import RunConfig, RunInfo
from mlrs_proto.v1 import advisor_pb2 as pb

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
"""Between attempts to join again: the first pause, and what its doubling ends at."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a run's `changed` is notified, or for so many seconds; early returns do no harm."""

    ledger: Ledger[Any]
    timeout_s: float


Procedure = Generator["Wait | Call[Any]", Any, T]
"""Yields what to wait for; is sent a call's result, or thrown its failure; returns a T."""


class Deadline:
    """A point in time, counted from now."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())


def check_process(pid: int) -> None:
    """Raise unless this is the process of that id; called before any lock or channel is touched.

    Raises:
        ForkedError: it is a fork of that process.
    """
    if os.getpid() != pid:
        raise ForkedError(
            "this advisor was made before the process forked, and gRPC connections do not survive that;"
            " connect again in the child"
        )


class Session:
    """The open runs of one advisor, and the stream that they share while there is one.

    Attributes:
        target: the daemon's address.
        closing: whether the advisor takes nothing new.
    """

    def __init__(self, target: str, open_transport: Callable[[Conversation], Transport]) -> None:
        self.target = target
        self.closing = False
        self._open_transport = open_transport
        self._conversation: Conversation | None = None
        self._setbacks: weakref.WeakKeyDictionary[Ledger[Any], MlrsError] = weakref.WeakKeyDictionary()
        self._joining: set[Ledger[Any]] = set()
        # Of sweeps that take several calls: those opened so far. A deadline in between loses none.
        self._reopened: weakref.WeakKeyDictionary[Ledger[Any], list[OpenedRun]] = weakref.WeakKeyDictionary()

    # ------------------------------------------------------------------------------ runs

    def join(self, ledger: Ledger[Any]) -> None:
        """Let a run that was just opened take part in the stream; opens one if there is none.

        Raises:
            ClosedError: the advisor was closed.
        """
        self.check_open()
        self._send_again(ledger, [])

    def observe(self, ledger: Ledger[E], step: int, loss: Any) -> tuple[E, bool]:
        """Enter an observation and send it, if there is a stream; waits for nothing.

        Args:
            ledger: the run's.
            step: its step.
            loss: its loss, or its losses.

        Returns:
            The entry, and whether it is new; if not, its advice is a replay.

        Raises:
            ClosedError: the advisor was closed.
            StepError: the step is not the expected one.
        """
        self.check_open()
        conversation = self._conversation
        try:
            entry, is_new = ledger.observe(step, loss)
            if is_new and conversation is not None and conversation.has(ledger):
                conversation.send(ledger, [entry])
        except MlrsError:
            raise
        except BaseException:  # Ctrl-C: whether it was sent is not known, and sending it twice does no harm
            interrupted = ledger.unanswered(step)
            if interrupted is not None and conversation is not None and conversation.has(ledger):
                conversation.send(ledger, [interrupted])
            raise
        return entry, is_new

    def is_cut_off(self, ledger: Ledger[Any]) -> bool:
        """Return whether a run has fallen off the stream, and nobody is about to join it again."""
        return not (self._has(ledger) or ledger in self._joining or self.closing)

    def catch_up(self, ledger: Ledger[Any], entry: Observed, deadline: Deadline) -> Procedure[None]:
        """Join the stream again for a loop that does not wait; what cannot pass refuses what was sent."""
        try:
            yield from self.answered(ledger, entry, deadline)
        except (UnavailableError, DeadlineExceededError, MemoryFullError, QueueFullError, DaemonError):
            pass  # the next step tries again
        except MlrsError as error:
            ledger.refuse_all(error)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Let a run take part in the stream no more; it joins again when somebody waits for it."""
        if self._conversation is not None:
            self._conversation.leave(ledger)

    def forget(self, ledger: Ledger[Any]) -> None:
        """Let a run that its caller has left take part in no stream any more."""
        ledger.left = True
        self.leave(ledger)

    def check_open(self) -> None:
        """Raise unless the advisor is open.

        Raises:
            ClosedError: it was closed.
        """
        if self.closing:
            raise ClosedError("the advisor was closed; connect again")

    # ------------------------------------------------------------------------ procedures

    def answered(self, ledger: Ledger[Any], entry: Observed, deadline: Deadline) -> Procedure[None]:
        """Wait until an entry is done; joins the stream again when it broke.

        Raises:
            DeadlineExceededError: there was none in time. The observation is kept, and the next call
                goes on with it.
            UnavailableError: the daemon was out of reach all the time. As above.
            MemoryFullError: it had no room all the time. As above.
        """
        yield from self._until(ledger, lambda: entry.done, deadline, f"no advice for step {entry.step}")

    def finish(self, ledger: Ledger[Any], deadline: Deadline) -> Procedure[tuple[RunInfo, ...]]:
        """Wait until the daemon has every observation of a ledger's runs, then mark them as finished."""
        try:
            if ledger.has_volatile():
                yield from self._until(
                    ledger,
                    lambda: self._has(ledger) and ledger.last_unanswered() is None,
                    deadline,
                    "not every observation was answered",
                )
        except RunFinishedError:  # by a call whose answer was lost, if the daemon has all that there was
            infos = yield from finish(ledger.run_ids)
            if any(info.next_step != ledger.next_step for info in infos):
                raise
            return infos
        return (yield from finish(ledger.run_ids))

    def complete(self, ledger: Ledger[Any], config: RunConfig) -> Procedure[None]:
        """Add to a run's config what it lacks."""
        opened = yield open_run(ledger.run_ids[0], config)
        ledger.config = opened.info.config

    def _until(
        self, ledger: Ledger[Any], reached: Callable[[], bool], deadline: Deadline, failure: str
    ) -> Procedure[None]:
        pause_s = 0.0
        not_before = Deadline(0.0)
        while not reached():
            if not deadline.left_s():
                raise self._too_late(ledger, failure, deadline)
            if self._has(ledger) or ledger in self._joining:
                yield Wait(ledger, deadline.left_s())
                continue
            self.check_open()
            if rest_s := not_before.left_s():
                yield Wait(ledger, min(rest_s, deadline.left_s()))
                continue
            pause_s = min(2 * pause_s or FIRST_PAUSE_S, LONGEST_PAUSE_S)
            not_before = Deadline(pause_s)
            yield from self._join_again(ledger)

    def _join_again(self, ledger: Ledger[Any]) -> Procedure[None]:
        """Ask the daemon where the run stands, and send what it lacks."""
        self._joining.add(ledger)
        try:
            reopened = self._reopened.setdefault(ledger, [])
            yield from reopen(ledger.run_ids, reopened)
            del self._reopened[ledger]
            self.check_open()
            if not ledger.left:
                self._send_again(ledger, ledger.rejoin(Opened(tuple(reopened))))
            self._setbacks.pop(ledger, None)
        except (UnavailableError, MemoryFullError) as error:  # either may pass before the deadline
            self._setbacks[ledger] = error
        finally:
            self._joining.discard(ledger)
            ledger.changed.notify_all()

    def _too_late(self, ledger: Ledger[Any], failure: str, deadline: Deadline) -> MlrsError:
        setback = self._setbacks.get(ledger)
        what = (
            f"{ledger.label}: {failure} within {deadline.timeout_s:g} s from {self.target}"
            f"{f' ({setback})' if setback else ''}; the observations are kept: try again, or raise timeout_s"
        )
        kind = DeadlineExceededError if setback is None else type(setback)
        return kind(what, reason=setback.reason if setback else None)

    # ----------------------------------------------------------------------------- stream

    def receive(self, conversation: Conversation, message: pb.StreamAdviceResponse) -> None:
        """Take in a message of a stream.

        Raises:
            DaemonError: it makes no sense.
        """
        kind = message.WhichOneof("kind")
        if kind == "drain":
            self._abandon(conversation, UnavailableError(f"the daemon is stopping: {message.drain.message}"))
        elif kind == "advice":
            ledger, setback = conversation.receive(message.advice)
            if setback is not None:
                self._setbacks[ledger] = setback
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
        if error is not None and not isinstance(error, (UnavailableError, QueueFullError, DaemonError)):
            conversation.fail(error)
        self._abandon(conversation, error)

    def _abandon(self, conversation: Conversation, setback: MlrsError | None) -> None:
        """Send nothing more on a stream."""
        if conversation is self._conversation:
            self._conversation = None
            if conversation.transport is not None:
                conversation.transport.half_close()
        for ledger in conversation.dissolve():
            if setback is not None:
                self._setbacks[ledger] = setback
            ledger.changed.notify_all()

    def _has(self, ledger: Ledger[Any]) -> bool:
        return self._conversation is not None and self._conversation.has(ledger)

    def _send_again(self, ledger: Ledger[Any], entries: Sequence[Observed]) -> None:
        if self._conversation is None:
            conversation = Conversation()
            conversation.transport = self._open_transport(conversation)
            self._conversation = conversation
        try:
            self._conversation.join(ledger)
            if entries:
                self._conversation.send(ledger, entries)
        except BaseException:  # Ctrl-C: whoever waits next joins again
            self.leave(ledger)
            raise
