"""One stream of observations: the order of its messages, by which answers are matched to entries."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from mlrs.errors import DaemonError, MlrsError
from mlrs.ledger.answers import Adapted, Advised, Refusal
from mlrs.ledger.entries import Observed
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.updates import MAX_UPDATES, Update

AT_ONCE = 1024
"""The most entries of a message, unless a sweep has more runs; the contract allows 65,536."""


class Transport(Protocol):
    """The sending side of a stream; no call waits."""

    def poke(self, ledger: Ledger[Any]) -> None:
        """Send what a run has to send, taken by `Conversation.take`. May be called twice."""

    def half_close(self) -> None:
        """Half-close the stream. The daemon answers what it has received and ends the stream."""

    def cancel(self) -> None:
        """Cancel the stream now."""


class Batch(NamedTuple):
    """The content of one message: observations or meta updates."""

    ledger: Ledger[Any]
    """The runs."""
    handles: list[int]
    """The runs' handles in the stream."""
    joining: int
    """Counts how often runs joined: refusals of earlier batches are ignored."""
    entries: Sequence[Observed] = ()
    """The observations."""
    updates: Sequence[tuple[Update, int]] = ()
    """The meta updates, each with the index of its run."""


class Conversation:
    """The messages of one stream, in order.

    A run joins, and joins again after a failure. Answers to what it sent before are accepted, since the
    daemon's answers are always the same. Refusals are ignored, since the entries were sent again.
    """

    def __init__(self, address: str, alone: Ledger[Any] | None = None) -> None:
        """`alone`: the only run that may join; `None`: any run."""
        self.address = address
        self.alone = alone
        self.transport: Transport | None = None
        self._sent: deque[Batch] = deque()
        self._members: dict[Ledger[Any], int] = {}
        self._joinings = itertools.count()

    @property
    def key(self) -> tuple[str, Ledger[Any] | None]:
        """The address and the run of which each stream is unique."""
        return self.address, self.alone

    def has(self, ledger: Ledger[Any]) -> bool:
        """Return whether a run has joined, so that its observations can be sent here."""
        return ledger in self._members

    def join(self, ledger: Ledger[Any]) -> None:
        """Let a run join."""
        self._members[ledger] = next(self._joinings)

    def leave(self, ledger: Ledger[Any]) -> None:
        """Let a run leave."""
        self._members.pop(ledger, None)

    def dissolve(self) -> list[Ledger[Any]]:
        """Let every run leave, and return them."""
        members = list(self._members)
        self._members.clear()
        return members

    def take(self, ledger: Ledger[Any]) -> list[Batch]:
        """Return the next messages of a run, in order, to be sent now; an empty list: there are none.

        They are few, because the caller holds a lock that training waits for.
        """
        joining = self._members.get(ledger)
        if joining is None:
            return []
        items: list[Any] = ledger.backlog.take_unsent(max(AT_ONCE // ledger.size, 1))
        if not items:
            return []
        if isinstance(items[0], Update):
            updates = [(update, run_index) for update in items for run_index in update.indexes()]
            batches = [
                Batch(ledger, ledger.handles, joining, updates=updates[start : start + MAX_UPDATES])
                for start in range(0, len(updates), MAX_UPDATES)
            ]
        else:
            batches = [Batch(ledger, ledger.handles, joining, items, ())]
        self._sent += batches
        return batches

    def receive(self, answer: Advised | Adapted) -> tuple[Ledger[Any], MlrsError | None, bool]:
        """Process an answer, which belongs to the oldest unanswered message.

        Returns:
            The run; the refusal that made the run leave, if any; and whether the run's outage is over.

        Raises:
            DaemonError: there is no such message, or it has another kind or length.
        """
        batch = self._answered_by(answer)
        ledger = batch.ledger
        stride = 1 if batch.updates else ledger.size
        refusals = (
            {refusal.index // stride: refusal for refusal in reversed(answer.refusals)}
            if answer.refusals
            else None
        )
        setback: MlrsError | None = None
        is_back = False
        if isinstance(answer, Advised):
            for index, entry in enumerate(batch.entries):
                if refusals and index in refusals:
                    run_index = refusals[index].index % stride
                    setback = self._refuse(batch, entry, refusals[index], run_index) or setback
                else:
                    ledger.answer(entry, answer, index * stride)
                    is_back = is_back or ledger.standby.is_back(entry.step)
        else:
            for index, (update, run_index) in enumerate(batch.updates):
                if refusals and index in refusals:
                    setback = self._refuse(batch, update, refusals[index], run_index) or setback
                else:
                    ledger.adapted(update, run_index, answer.read_result(answer.results[index], update.step))
                    is_back = is_back or (not update.unanswered and ledger.standby.is_back(update.step))
        return ledger, setback, is_back

    def fail(self, error: MlrsError) -> None:
        """Refuse everything that has no answer."""
        for batch in list(self._sent):
            if self._is_current(batch):
                for update, _ in batch.updates:
                    batch.ledger.refuse_update(update, error)
                for entry in batch.entries:
                    batch.ledger.refuse(entry, error)

    def _answered_by(self, answer: Advised | Adapted) -> Batch:
        if not self._sent:
            raise DaemonError("the daemon answered more messages than it was sent; are versions mixed?")
        batch = self._sent.popleft()
        if isinstance(answer, Adapted) is not bool(batch.updates):
            raise DaemonError(
                "the daemon answered observations and meta updates in another order; use one of"
                " a newer version"
            )
        count = len(batch.updates) or len(batch.entries) * batch.ledger.size
        if not answer.fits(count):
            raise DaemonError(f"the daemon answered {count} entries with columns of another length")
        return batch

    def _refuse(
        self, batch: Batch, item: Observed | Update, refusal: Refusal, run_index: int
    ) -> MlrsError | None:
        """Process a refusal; return its error if the run has left because of it, to send the entry again."""
        if not self._is_current(batch):
            return None
        error = refusal.error(batch.ledger.run_ids[run_index])
        if refusal.may_pass:
            self.leave(batch.ledger)
            return error
        if isinstance(item, Update):
            batch.ledger.refuse_update(item, error)
        else:
            batch.ledger.refuse(item, error)
        return None

    def _is_current(self, batch: Batch) -> bool:
        return self._members.get(batch.ledger) == batch.joining
