"""Which answer belongs to which observation."""

from __future__ import annotations

from typing import Any

import pytest

from mlrs import UnavailableError
from mlrs.errors import DaemonError
from mlrs.ledger.entries import Entry
from mlrs.ledger.ledger import Ledger
from mlrs.protocol import conversation as module
from mlrs.protocol.conversation import Conversation
from mlrs.wire.stream_messages import batch_to_proto
from mlrs_proto import v1 as pb
from tests.client.ledger.ledgers import advised, read
from tests.client.ledger.test_ledger import ledger_at, opened


class Outbox:
    """A transport that keeps what is sent."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.messages: list[pb.StreamAdviceRequest] = []

    def poke(self, ledger: Ledger[Entry]) -> None:
        """Keep what a run has to send."""
        while batches := self.conversation.take(ledger):
            self.messages += map(batch_to_proto, batches)

    def half_close(self) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""


def conversation_of(*ledgers: Ledger[Entry]) -> tuple[Conversation, Outbox]:
    """Return a conversation that runs have joined."""
    conversation = Conversation("host:1")
    conversation.transport = outbox = Outbox(conversation)
    for ledger in ledgers:
        conversation.join(ledger)
    return conversation, outbox


def refusal(reason: pb.ErrorReason.ValueType) -> Any:
    """Return a refusal of a message of one entry."""
    columns = pb.AdviceColumns(learning_rates=[0.0], durable_steps=[-1])
    columns.errors.add(index=0, reason=reason)
    return read(pb.StreamAdviceResponse(advice=columns))


def test_answers_come_in_order() -> None:
    """The oldest message without an answer gets it, whatever run it is of."""
    one, other = ledger_at(), ledger_at()
    conversation, outbox = conversation_of(one, other)
    entries = [ledger.observe(0, 1.0)[0] for ledger in (one, other)]
    for ledger in (one, other):
        outbox.poke(ledger)
        outbox.poke(ledger)  # again: there is nothing more to send
    assert [list(message.observations.losses) for message in outbox.messages] == [[1.0], [1.0]]
    assert conversation.receive(advised([0.1])) == (one, None, False)
    assert conversation.receive(advised([0.2])) == (other, None, False)
    assert [entry.result().learning_rate for entry in entries] == [0.1, 0.2]


def test_long_messages_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message is long, so that no thread waits long for the lock that it is made under."""
    monkeypatch.setattr(module, "AT_ONCE", 2)
    ledger = ledger_at()
    _, outbox = conversation_of(ledger)
    for step in range(5):
        ledger.observe(step, 1.0)
    assert [len(batch.entries) for batch in outbox.conversation.take(ledger)] == [2]
    outbox.poke(ledger)
    assert [list(message.observations.steps) for message in outbox.messages] == [[2, 3], [4]]


def test_late_refusals_are_passed_over() -> None:
    """After a run has joined again, refusals of what it sent before are ignored; answers are not."""
    ledger = ledger_at()
    conversation, outbox = conversation_of(ledger)
    entries = []
    for step in range(3):
        entries.append(ledger.observe(step, 1.0)[0])
        outbox.poke(ledger)
    _, setback, _ = conversation.receive(refusal(pb.ERROR_REASON_STALE_HANDLE))
    assert isinstance(setback, UnavailableError)
    assert not conversation.has(ledger)
    ledger.rejoin(opened())
    conversation.join(ledger)
    outbox.poke(ledger)
    assert conversation.receive(refusal(pb.ERROR_REASON_STEP_AHEAD)) == (ledger, None, False)
    assert conversation.receive(advised([0.3])) == (ledger, None, False)
    assert conversation.has(ledger)
    assert [entry.done for entry in entries] == [False, False, True]
    conversation.receive(advised([0.1, 0.2, 0.3]))
    assert [entry.result().learning_rate for entry in entries] == [0.1, 0.2, 0.3]


def test_answers_that_make_no_sense() -> None:
    """An answer to nothing, or of another length, is an error of the daemon, not of ours."""
    ledger = ledger_at()
    conversation, outbox = conversation_of(ledger)
    with pytest.raises(DaemonError, match="more messages"):
        conversation.receive(advised([0.1]))
    ledger.observe(0, 1.0)
    outbox.poke(ledger)
    with pytest.raises(DaemonError, match="another length"):
        conversation.receive(advised([0.1, 0.2]))
