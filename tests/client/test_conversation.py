"""Which answer belongs to which observation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlrs_client import DaemonError, UnavailableError
from mlrs_client import _conversation as module
from mlrs_client._conversation import Conversation
from mlrs_client._ledger import Entry, Ledger
from mlrs_proto.v1 import advisor_pb2 as pb
from tests.client.test_ledger import ledger_at


class Outbox:
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[pb.StreamAdviceRequest] = []
        self.closed = False

    def send(self, message: pb.StreamAdviceRequest, leaving: Callable[[], None]) -> None:
        """Keep a message."""
        leaving()
        self.messages.append(message)

    def half_close(self) -> None:
        """Note the end."""
        self.closed = True


def conversation_of(*ledgers: Ledger[Entry]) -> tuple[Conversation, Outbox]:
    """Return a conversation that runs have joined."""
    conversation, outbox = Conversation(), Outbox()
    conversation.transport = outbox
    for ledger in ledgers:
        conversation.join(ledger)
    return conversation, outbox


def answer(*lrs: float) -> pb.AdviceColumns:
    """Return an answer; without reasons, every one is fresh."""
    return pb.AdviceColumns(learning_rates=lrs, durable_steps=[-1] * len(lrs))


def refusal(reason: pb.ErrorReason.ValueType) -> pb.AdviceColumns:
    """Return a refusal of a message of one entry."""
    columns = answer(0.0)
    columns.errors.add(index=0, reason=reason)
    return columns


def test_answers_come_in_order() -> None:
    """The oldest message without an answer gets it, whatever run it is of."""
    one, other = ledger_at(), ledger_at()
    conversation, outbox = conversation_of(one, other)
    entries = [ledger.observe(0, 1.0)[0] for ledger in (one, other)]
    conversation.send(one, entries[:1])
    conversation.send(other, entries[1:])
    assert [list(message.losses) for message in outbox.messages] == [[1.0], [1.0]]
    assert conversation.receive(answer(0.1)) == (one, None)
    assert conversation.receive(answer(0.2)) == (other, None)
    assert [entry.result().learning_rate for entry in entries] == [0.1, 0.2]


def test_long_messages_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message has more entries than the contract allows."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    ledger = ledger_at()
    conversation, outbox = conversation_of(ledger)
    conversation.send(ledger, [ledger.observe(step, 1.0)[0] for step in range(5)])
    assert [list(message.steps) for message in outbox.messages] == [[0, 1], [2, 3], [4]]


def test_late_refusals_are_passed_over() -> None:
    """After a run has joined again, refusals of what it sent before say nothing; answers still do."""
    ledger = ledger_at()
    conversation, _ = conversation_of(ledger)
    entries = [ledger.observe(step, 1.0)[0] for step in range(3)]
    for entry in entries:
        conversation.send(ledger, [entry])
    _, setback = conversation.receive(refusal(pb.ERROR_REASON_STALE_HANDLE))
    assert isinstance(setback, UnavailableError)
    assert not conversation.has(ledger)
    conversation.join(ledger)
    conversation.send(ledger, entries)
    assert conversation.receive(refusal(pb.ERROR_REASON_STEP_AHEAD)) == (ledger, None)
    assert conversation.receive(answer(0.3)) == (ledger, None)
    assert conversation.has(ledger)
    assert [entry.done for entry in entries] == [False, False, True]
    conversation.receive(answer(0.1, 0.2, 0.3))
    assert [entry.result().learning_rate for entry in entries] == [0.1, 0.2, 0.3]


def test_answers_that_make_no_sense() -> None:
    """An answer to nothing, or of another length, is an error of the daemon, not of ours."""
    ledger = ledger_at()
    conversation, _ = conversation_of(ledger)
    with pytest.raises(DaemonError, match="more messages"):
        conversation.receive(answer(0.1))
    conversation.send(ledger, [ledger.observe(0, 1.0)[0]])
    with pytest.raises(DaemonError, match="another length"):
        conversation.receive(answer(0.1, 0.2))
