"""The waits of users' calls: for an answer, the fallback, or the end of a deadline.

A wait changes almost no state, so it may be interrupted anywhere and repeated.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from mlrs.errors import (
    DaemonError,
    DeadlineExceededError,
    MlrsError,
    RunFinishedError,
    UnavailableError,
)
from mlrs.ledger.entries import Observed
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import Update
from mlrs.protocol.addresses import LEAST_ATTEMPT_S
from mlrs.protocol.conversation import Conversation
from mlrs.protocol.deadline import Deadline
from mlrs.protocol.routing import Procedure
from mlrs.protocol.session import DENIALS, PASSING, Session
from mlrs.values.types import RunInfo

PAUSE_S = 0.1
"""The pause between two calls that found no daemon, in seconds."""
T = TypeVar("T")
Awaited: TypeAlias = Observed | Update
"""What a call sends and waits for."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a run's `changed` is notified, or for `timeout_s` seconds; may return early."""

    ledger: Ledger[Any]
    timeout_s: float


Waiting = Generator[Wait, None, T]
"""Yields waits; returns a T."""


@dataclass(frozen=True, slots=True)
class Perform(Generic[T]):
    """Run a procedure of at most `timeout_s` seconds, and receive its result."""

    procedure: Procedure[T]
    timeout_s: float


Action = Generator[Waiting[Any] | Perform[Any], Any, T]
"""Yields waits and procedures, one after another, receives the result of each, and returns a T."""


def patience_s(session: Session, timeout_s: float) -> float:
    """Return how long to wait for an answer on one stream before another address is tried, in seconds.

    Args:
        session: the advisor's.
        timeout_s: the whole deadline of the call, in seconds, not what is left of it.
    """
    return max(timeout_s / 2, LEAST_ATTEMPT_S) if session.addresses.several else timeout_s


def patient_s(session: Session, ledger: Ledger[Any], deadline: Deadline) -> float:
    """Return how long a call waits on, in seconds; 0: it ends now.

    A daemon that replays a run needs time; for a daemon that cannot be reached the deadline is earlier.
    """
    left_s = deadline.left_s()
    if deadline.reach_s is None or ledger not in session.setbacks:
        return left_s
    return min(left_s, max(deadline.reach_s - deadline.spent_s(), 0.0))


def answered(session: Session, ledger: Ledger[Any], entry: Awaited, deadline: Deadline) -> Waiting[None]:
    """Wait until an entry is done, by the daemon or, if that takes too long, by the fallback."""
    waited_on = session.conversation_of(ledger)
    patience = deadline.earlier(patience_s(session, deadline.timeout_s))
    while not entry.done:
        if ledger.standby.outage is not None and ledger.can_stand_in():
            _stand_in(session, ledger, entry)
            return
        left_s = patient_s(session, ledger, deadline)
        if not left_s:
            give_up(session, ledger, entry, too_late(session, ledger, entry, deadline.spent_s()))
            return
        conversation = session.conversation_of(ledger)
        if conversation is not None and conversation is not waited_on:
            waited_on, patience = conversation, Deadline(patience_s(session, deadline.timeout_s))
        if conversation is None:
            session.check_open()
            if ledger not in session.joining:
                session.host.ensure_joined(ledger)
        elif not patience.left_s() and session.addresses.several:
            session.host.abandon(conversation, _silent(conversation, patience.timeout_s))
            patience = deadline
        yield Wait(ledger, min(left_s, patience.left_s() or left_s))


def opened(session: Session, ledger: Ledger[Any], deadline: Deadline) -> Waiting[None]:
    """Wait until runs are open, or begin with their fallback."""
    if not ledger.is_open:
        ledger.denied = None
        session.want(ledger)
    while not ledger.is_open and ledger.standby.outage is None:
        session.check_open()
        if ledger.denied is not None:
            session.want_no_more(ledger)
            raise ledger.denied.with_traceback(None)
        left_s = patient_s(session, ledger, deadline)
        if not left_s:
            error = too_late(session, ledger, None, deadline.spent_s())
            if not ledger.can_stand_in():
                session.want_no_more(ledger)
                raise error
            ledger.cut_off(error)
            session.host.ensure_joined(ledger)
            return
        yield Wait(ledger, left_s)


def settled(
    session: Session, ledger: Ledger[Any], deadline: Deadline, *, again: bool = False
) -> Waiting[None]:
    """Wait until the daemon has every observation of a ledger's runs.

    Args:
        session: the advisor's.
        ledger: the runs'.
        deadline: how long to wait.
        again: whether the daemon has reported that it lacks some: the runs join again and send them.
    """
    if ledger.standby.outage is not None and ledger.standby.outage.lost is not None:
        raise ledger.standby.outage.lost.with_traceback(None)
    if not ledger.backlog.has_volatile() and ledger.backlog.last_unanswered() is None:
        return
    if again:
        session.leave_stream(ledger)
    while (last := ledger.backlog.last_unanswered()) is not None or session.conversation_of(ledger) is None:
        session.check_open()
        if last is None and ledger.is_finished:
            return
        if not deadline.left_s():
            raise too_late(session, ledger, last, deadline.timeout_s)
        if session.conversation_of(ledger) is None:
            session.want(ledger)
        yield Wait(ledger, deadline.left_s())


def paused(ledger: Ledger[Any], deadline: Deadline, error: MlrsError) -> Waiting[None]:
    """Pause before a call that found no daemon is repeated; raise its error if there is no time left."""
    if deadline.left_s() <= PAUSE_S:
        raise error
    yield Wait(ledger, PAUSE_S)


def is_away(ledger: Ledger[Any], error: MlrsError) -> bool:
    """Return whether runs could not be finished because no daemon is available that accepts their steps.

    False where the caller wants errors (no fallback), or where each rank has a part of the observations.
    """
    if ledger.standby.fallback is None or ledger.rank is not None:
        return False
    return ledger.standby.is_lost or isinstance(error, (*PASSING, *DENIALS))


def check_complete(ledger: Ledger[Any], finished: Iterable[RunInfo]) -> None:
    """Raise `RunFinishedError` if somebody else finished a run before it had every observation."""
    for info in finished:
        if info.next_step < ledger.next_step:
            raise RunFinishedError(
                f"run {info.id!r} was finished by somebody else at step {info.next_step}, and this client"
                f" observed {ledger.next_step} steps; reopen it with resume_from={info.next_step}"
            )


def lagging(session: Session, ledger: Ledger[Any], entry: Any, lr: float, late_s: float) -> float:
    """Return the learning rate for a loop that never waits: the newest advice, or the fallback's.

    Args:
        session: the advisor's.
        ledger: the run's.
        entry: the step's entry.
        lr: the newest advice of the earlier steps.
        late_s: how long there has been no newer advice, in seconds.
    """
    if entry.done or not ledger.can_stand_in():
        return lr
    if ledger.standby.outage is None:
        if late_s <= session.timeout_s:
            return lr
        ledger.cut_off(too_late(session, ledger, entry, session.timeout_s))
    _stand_in(session, ledger, entry)
    stood_in: float = entry.lr()
    return stood_in


def give_up(session: Session, ledger: Ledger[Any], entry: Awaited, error: MlrsError) -> None:
    """Begin an outage: the fallback answers this entry and, without a wait, later ones; raise without one."""
    if not ledger.can_stand_in():
        raise error
    if session.addresses.several and (conversation := session.conversation_of(ledger)) is not None:
        session.host.abandon(conversation, _silent(conversation, session.timeout_s))
    ledger.cut_off(error)
    _stand_in(session, ledger, entry)


def _silent(conversation: Conversation, timeout_s: float) -> DeadlineExceededError:
    """Return the reason for which a stream is abandoned, for later messages about its runs."""
    return DeadlineExceededError(f"daemon at {conversation.address}: no answer for {timeout_s:g} s")


def too_late(session: Session, ledger: Ledger[Any], entry: Awaited | None, timeout_s: float) -> MlrsError:
    """Return the error for an answer that did not come in time."""
    setback = session.setbacks.get(ledger)
    failure = "not every observation was answered" if entry is None else f"no advice for step {entry.step}"
    if isinstance(entry, Update):
        failure = f"no answer to the meta update of step {entry.step}"
    way_out = "the observations are kept: try again, or raise timeout_s"
    if not ledger.is_open:
        failure = "could not be opened"
        way_out = (
            "the timeout_s of advisor.run(...) says how long opening may take, that of connect(...), or of a"
            " call, how long each step may; to begin without the daemon, say on_unavailable='fallback'"
        )
    what = (
        f"{ledger.label}: {failure} within {timeout_s:.3g} s from {session.addresses}"
        f"{f' ({setback})' if setback else ''}; {way_out}"
    )
    if ledger.standby.fallback is not None and ledger.is_open and not ledger.can_stand_in():
        what += "; the fallback has no learning rate yet: give initial_lr=, or a schedule as fallback="
    if setback is None:
        return DeadlineExceededError(what)
    if setback.reason is None and isinstance(
        setback, DaemonError
    ):  # a connection that broke, in the words of gRPC
        return UnavailableError(what)
    return type(setback)(what, reason=setback.reason)


def _stand_in(session: Session, ledger: Ledger[Any], entry: Awaited) -> None:
    ledger.stand_in(entry)
    if ledger.standby.outage is not None and ledger.standby.outage.has_news:
        session.host.ensure_joined(ledger)
