"""One stream of observations: what was sent on it, in order, so that answers find their entries."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mlrs_client._convert import reason_from_proto
from mlrs_client._exceptions import DaemonError, MlrsError
from mlrs_client._ledger import Entry, Ledger
from mlrs_client._status import from_entry_error
from mlrs_client._types import AdviceReason
from mlrs_proto.v1 import advisor_pb2 as pb

MAX_ENTRIES = 65_536
"""The most entries of a message that the contract allows."""


class Transport(Protocol):
    """The sending side of a stream; neither call waits."""

    def send(self, message: pb.StreamAdviceRequest, *, attended: bool) -> None:
        """Send a message after those sent before; `attended`: the sender goes on to wait for the answer."""

    def half_close(self) -> None:
        """Say that no more follow. The daemon answers what it has and ends the stream."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """What one message was about, and which joining of its run it belongs to."""

    ledger: Ledger
    entries: Sequence[Entry]
    joining: int


class Conversation:
    """The messages of one stream, in order.

    A run joins, and after a setback joins again. What it sent before that may still be answered, and
    is welcome: the answers are the same. Refusals of it are not: the entries were sent again.
    """

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self._sent: deque[_Batch] = deque()
        self._members: dict[Ledger, int] = {}
        self._joinings = itertools.count()

    def has(self, ledger: Ledger) -> bool:
        """Return whether a run takes part, so that its observations can be sent here."""
        return ledger in self._members

    def join(self, ledger: Ledger) -> None:
        """Let a run take part."""
        self._members[ledger] = next(self._joinings)

    def leave(self, ledger: Ledger) -> None:
        """Let a run take part no more."""
        self._members.pop(ledger, None)

    def dissolve(self) -> list[Ledger]:
        """Let every run leave, and return them."""
        members = list(self._members)
        self._members.clear()
        return members

    def is_owed(self) -> bool:
        """Return whether a message has no answer yet."""
        return bool(self._sent)

    def send(self, ledger: Ledger, entries: Sequence[Entry], *, attended: bool = False) -> None:
        """Send entries of one run; `attended` as for `Transport`."""
        if self.transport is None:
            raise AssertionError("a conversation without a transport")
        for start in range(0, len(entries), MAX_ENTRIES):
            part = entries[start : start + MAX_ENTRIES]
            self._sent.append(_Batch(ledger, part, self._members[ledger]))
            self.transport.send(
                pb.StreamAdviceRequest(
                    run_handles=[ledger.handle] * len(part),
                    steps=[entry.step for entry in part],
                    losses=[entry.loss for entry in part],
                ),
                attended=attended,
            )

    def receive(self, columns: pb.AdviceColumns) -> tuple[Ledger, MlrsError | None]:
        """Take in the answer to the oldest message that has none.

        Returns:
            The run it is about; and the refusal because of which the run has left, if it has.

        Raises:
            DaemonError: it answers no message, or has columns of another length.
        """
        if not self._sent:
            raise DaemonError("the daemon answered more messages than it was sent; are versions mixed?")
        batch = self._sent.popleft()
        count = len(batch.entries)
        lrs, durable_steps, reasons = columns.learning_rates, columns.durable_steps, columns.reasons
        if len(lrs) != count or len(durable_steps) != count or len(reasons or lrs) != count:
            raise DaemonError(f"the daemon answered {count} entries with columns of another length")
        errors = {error.index: error for error in columns.errors}
        setback: MlrsError | None = None
        for index, entry in enumerate(batch.entries):
            if index in errors:
                setback = self._refuse(batch, entry, errors[index]) or setback
            else:
                reason = reason_from_proto(reasons[index]) if reasons else AdviceReason.FRESH
                batch.ledger.answer(entry, lrs[index], reason, durable_steps[index])
        return batch.ledger, setback

    def fail(self, error: MlrsError) -> None:
        """Refuse everything that has no answer."""
        for batch in self._sent:
            if self._is_current(batch):
                for entry in batch.entries:
                    batch.ledger.refuse(entry, error)

    def _refuse(self, batch: _Batch, entry: Entry, refusal: pb.EntryError) -> MlrsError | None:
        if not self._is_current(batch):
            return None
        error = from_entry_error(refusal, batch.ledger.run_id)
        if refusal.reason == pb.ERROR_REASON_STALE_HANDLE:  # joining and sending again may cure it
            self.leave(batch.ledger)
            return error
        batch.ledger.refuse(entry, error)
        return None

    def _is_current(self, batch: _Batch) -> bool:
        return self._members.get(batch.ledger) == batch.joining
