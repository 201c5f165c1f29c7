"""One stream of observations: what was sent on it, in order, so that answers find their entries."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from mlrs_client._entries import Observed
from mlrs_client._exceptions import DaemonError, MlrsError
from mlrs_client._ledger import Ledger
from mlrs_client._status import from_entry_error
from mlrs_client._updates import MAX_UPDATES, Update
from mlrs_proto.v1 import advisor_pb2 as pb

AT_ONCE = 4096
"""Entries of a message, unless a sweep has more runs; the contract allows 65,536."""


class Transport(Protocol):
    """The sending side of a stream; no call waits."""

    def poke(self, ledger: Ledger[Any]) -> None:
        """Have what a run has to send sent, with `Conversation.take`. Doing it twice does no harm."""

    def half_close(self) -> None:
        """Say that no more follow. The daemon answers what it has and ends the stream."""

    def cancel(self) -> None:
        """End the stream now, as nothing comes of it any more."""


_PASSING = {
    pb.ERROR_REASON_STALE_HANDLE,
    pb.ERROR_REASON_QUEUE_FULL,
    pb.ERROR_REASON_STORE,
    pb.ERROR_REASON_DRAINING,
    pb.ERROR_REASON_NOT_OWNER,
    pb.ERROR_REASON_MEMORY_FULL,
    pb.ERROR_REASON_TENANT_LIMIT,
}
"""Refusals that say nothing against what was sent."""


class _Batch(NamedTuple):
    """What one message was about, and which joining of its runs it belongs to."""

    ledger: Ledger[Any]
    entries: Sequence[Observed]
    joining: int
    parts: Sequence[tuple[Update, int]] = ()  # or of these updates, each with the run's place


class Conversation:
    """The messages of one stream, in order.

    A run joins, and after a setback joins again. What it sent before that may still be answered, and
    is welcome: the answers are the same. Refusals of it are not: the entries were sent again.
    """

    def __init__(self, address: str, alone: Ledger[Any] | None = None) -> None:
        """`alone` is the only run that may join, if there is one."""
        self.address = address
        self.alone = alone
        self.transport: Transport | None = None
        self._sent: deque[_Batch] = deque()
        self._members: dict[Ledger[Any], int] = {}
        self._joinings = itertools.count()

    @property
    def key(self) -> tuple[str, Ledger[Any] | None]:
        """What tells it from others that are under way."""
        return self.address, self.alone

    def has(self, ledger: Ledger[Any]) -> bool:
        """Return whether a run takes part, so that its observations can be sent here."""
        return ledger in self._members

    def join(self, ledger: Ledger[Any]) -> None:
        """Let a run take part."""
        self._members[ledger] = next(self._joinings)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Let a run take part no more."""
        self._members.pop(ledger, None)

    def dissolve(self) -> list[Ledger[Any]]:
        """Let every run leave, and return them."""
        members = list(self._members)
        self._members.clear()
        return members

    def take(self, ledger: Ledger[Any]) -> list[pb.StreamAdviceRequest]:
        """Return the next messages that a run has to send, which go out now, in order; none: that was all.

        They are few: whoever takes holds a lock that training waits for.
        """
        if ledger not in self._members:
            return []
        messages = []
        for is_update, items in itertools.groupby(
            ledger.take_unsent(max(AT_ONCE // ledger.size, 1)), key=lambda item: isinstance(item, Update)
        ):
            take = self._take_updates if is_update else self._take_entries
            messages += take(ledger, list(items))
        return messages

    def _take_entries(self, ledger: Ledger[Any], entries: list[Any]) -> list[pb.StreamAdviceRequest]:
        self._sent.append(_Batch(ledger, entries, self._members[ledger]))
        return [_message(ledger, entries)]

    def _take_updates(self, ledger: Ledger[Any], updates: list[Any]) -> list[pb.StreamAdviceRequest]:
        parts = [(update, place) for update in updates for place in update.places()]
        messages = []
        for start in range(0, len(parts), MAX_UPDATES):
            part = parts[start : start + MAX_UPDATES]
            self._sent.append(_Batch(ledger, (), self._members[ledger], part))
            sent = [update.message(place, ledger.handles[place]) for update, place in part]
            messages.append(pb.StreamAdviceRequest(updates=sent))
        return messages

    def receive(self, columns: pb.AdviceColumns) -> tuple[Ledger[Any], MlrsError | None, bool]:
        """Take in the answer to the oldest message that has none.

        Returns:
            The run it is about; the refusal because of which the run has left, if it has; and whether its
            outage is over.

        Raises:
            DaemonError: it answers no message, or has columns of another length.
        """
        batch = self._answered(are_updates=False)
        ledger, size = batch.ledger, batch.ledger.size
        count = len(batch.entries) * size
        lengths = len(columns.learning_rates), len(columns.durable_steps), len(columns.reasons) or count
        if lengths != (count, count, count):
            raise DaemonError(f"the daemon answered {count} entries with columns of another length")
        refusals = (
            {error.index // size: error for error in reversed(columns.errors)} if columns.errors else {}
        )
        setback: MlrsError | None = None
        is_back = False
        for index, entry in enumerate(batch.entries):
            if index in refusals:
                setback = self._refuse(batch, entry, refusals[index]) or setback
            else:
                ledger.answer(entry, columns, index * size)
                is_back = is_back or (ledger.outage is not None and ledger.is_back(entry))
        return ledger, setback, is_back

    def adapt(self, answer: pb.Adaptations) -> tuple[Ledger[Any], MlrsError | None, bool]:
        """Take in the answer to the oldest message that has none, which was one of meta updates.

        Returns, and raises: as `receive`.
        """
        batch = self._answered(are_updates=True)
        if len(answer.results) != len(batch.parts):
            raise DaemonError(f"the daemon answered {len(batch.parts)} meta updates with another number")
        refusals = {error.index: error for error in reversed(answer.errors)}
        setback: MlrsError | None = None
        is_back = False
        for index, (update, place) in enumerate(batch.parts):
            if index in refusals:
                refused = self._refuse_update(batch, update, place, refusals[index])
                setback = refused or setback
            else:
                batch.ledger.adapted(update, place, answer.results[index])
                is_back = is_back or (not update.owed and batch.ledger.is_back(update))
        return batch.ledger, setback, is_back

    def _answered(self, *, are_updates: bool) -> _Batch:
        if not self._sent:
            raise DaemonError("the daemon answered more messages than it was sent; are versions mixed?")
        batch = self._sent.popleft()
        if bool(batch.parts) is not are_updates:
            raise DaemonError(
                "the daemon answered observations and meta updates in another order; use one of"
                " a newer version"
            )
        return batch

    def fail(self, error: MlrsError) -> None:
        """Refuse everything that has no answer."""
        for batch in list(self._sent):
            if self._is_current(batch):
                for update, _ in batch.parts:
                    batch.ledger.refuse_update(update, error)
                for entry in batch.entries:
                    batch.ledger.refuse(entry, error)

    def _refuse(self, batch: _Batch, entry: Observed, refusal: pb.EntryError) -> MlrsError | None:
        if not self._is_current(batch):
            return None
        error = from_entry_error(refusal, batch.ledger.run_ids[refusal.index % batch.ledger.size])
        if refusal.reason in _PASSING:  # joining and sending again may cure it
            self.leave(batch.ledger)
            return error
        batch.ledger.refuse(entry, error)
        return None

    def _refuse_update(
        self, batch: _Batch, update: Update, place: int, refusal: pb.EntryError
    ) -> MlrsError | None:
        if not self._is_current(batch):
            return None
        error = from_entry_error(refusal, batch.ledger.run_ids[place])
        if refusal.reason in _PASSING:
            self.leave(batch.ledger)
            return error
        batch.ledger.refuse_update(update, error)
        return None

    def _is_current(self, batch: _Batch) -> bool:
        return self._members.get(batch.ledger) == batch.joining


def _message(ledger: Ledger[Any], entries: Sequence[Observed]) -> pb.StreamAdviceRequest:
    handles = ledger.handles
    if len(entries) == 1:
        (entry,) = entries
        message = pb.StreamAdviceRequest(run_handles=handles, steps=entry.steps, losses=entry.losses)
    else:
        message = pb.StreamAdviceRequest(
            run_handles=handles * len(entries),
            steps=list(itertools.chain.from_iterable(entry.steps for entry in entries)),
            losses=list(itertools.chain.from_iterable(entry.losses for entry in entries)),
        )
    if ledger.rank is not None:
        message.ranks.extend([ledger.rank] * len(entries))
        message.sample_counts.extend(itertools.chain.from_iterable(entry.sample_counts for entry in entries))
    return message
