"""Meta updates in the client's record of a run, and on their way: their order, and that none is lost."""

from __future__ import annotations

import contextlib
import math
import sys
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlrs
from mlrs import Meta
from mlrs.errors import InvalidArgumentError
from mlrs.ledger.entries import Entry
from mlrs.ledger.fallback import Fallback
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_result import Opened, OpenedRun
from mlrs.ledger.updates import MAX_UPDATES, Update
from mlrs.protocol.conversation import Conversation
from mlrs.types import Adaptation, MetaOutcome
from mlrs.wire.convert import run_from_proto
from mlrs.wire.meta_convert import adaptation_from_proto
from mlrs.wire.stream_messages import batch_to_proto
from mlrs_proto import v1 as pb
from tests.client.ledger.ledgers import advised, opened_ledger, read
from tests.client.protocol.test_conversation import Outbox
from tests.support.runs import open_run

Event = tuple[str, int, float]


def opened(next_step: int = 0, durable_step: int = -1, runs: int = 1) -> Opened:
    """Return a daemon's word on runs in meta mode."""
    config = pb.RunConfig(meta=pb.Meta(order=pb.META_ORDER_BEFORE_STEP))
    infos = [
        run_from_proto(
            pb.Run(
                run_id=f"run-{index}",
                config=config,
                next_step=next_step,
                durable_step=None if durable_step < 0 else durable_step,
            )
        )
        for index in range(runs)
    ]
    return Opened(
        tuple(
            OpenedRun(info, handle=index, created=False, took_over=False) for index, info in enumerate(infos)
        )
    )


def ledger_at(next_step: int = 0, *, fallback: Fallback | None = None, runs: int = 1) -> Ledger[Entry]:
    """Return a ledger of runs in meta mode that stand there."""
    return opened_ledger(opened(next_step, runs=runs), Entry, fallback=fallback)


def adapt(ledger: Ledger[Entry], step: int, alignment: float = 1.0) -> Update:
    """Enter an update."""
    update, _ = ledger.adapt(step, (alignment,), (None,))
    return update


def adapted(learning_rate: float) -> Adaptation:
    """Return the answer to the update of one run at step 0."""
    return adaptation_from_proto(pb.MetaResult(learning_rate=learning_rate), 0)


class Daemon:
    """A daemon's record of one run, as the contract has it: events in order, so many of which are durable."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.durable = 0

    @property
    def next_step(self) -> int:
        """The step that it expects."""
        return sum(kind == "observation" for kind, _, _ in self.events)

    @property
    def durable_step(self) -> int:
        """How far it says that the run is durable: of updates only those ahead of a durable observation."""
        return sum(kind == "observation" for kind, _, _ in self.events[: self.durable]) - 1

    def answer(self, message: pb.StreamAdviceRequest) -> pb.StreamAdviceResponse:
        """Take in a message; nothing in it may be out of order."""
        if message.HasField("meta_updates"):
            results = [self._adapt(update.step, update.alignment) for update in message.meta_updates.updates]
            return pb.StreamAdviceResponse(meta_results=pb.MetaResults(results=results))
        sent = message.observations
        for step, loss in zip(sent.steps, sent.losses, strict=True):
            event = ("observation", step, loss)
            if event not in self.events:
                assert step == self.next_step, f"observation {step} of {self.next_step}"
                self.events.append(event)
        count = len(sent.steps)
        columns = pb.AdviceColumns(learning_rates=[0.1] * count, durable_steps=[self.durable_step] * count)
        return pb.StreamAdviceResponse(advice=columns)

    def _adapt(self, step: int, alignment: float) -> pb.MetaResult:
        event = ("update", step, alignment)
        if event not in self.events:
            assert step == self.next_step - 1, f"update of {step}, the newest is {self.next_step - 1}"
            assert self.events[-1][0] == "observation", "a second update of a step"
            self.events.append(event)
        return pb.MetaResult(learning_rate=0.2, outcome=pb.META_OUTCOME_APPLIED)


class Scene:
    """A ledger, the streams that it was on, and a daemon that may be killed."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.ledger = ledger_at()
        self.entered: list[Event] = []
        self.streams: list[tuple[Conversation, deque[pb.StreamAdviceResponse]]] = []
        self.join()

    def join(self) -> None:
        """Open the run again on a new stream; answers of the last one may arrive later."""
        if self.streams:
            self.streams[-1][0].leave(self.ledger)
        self.conversation = Conversation("host:1")
        self.conversation.transport = self.outbox = Outbox(self.conversation)
        self.answers: deque[pb.StreamAdviceResponse] = deque()
        self.streams = [*self.streams[-1:], (self.conversation, self.answers)]
        self.ledger.rejoin(opened(self.daemon.next_step, self.daemon.durable_step))
        self.conversation.join(self.ledger)

    def do(self, kind: str, number: int) -> None:
        """Have something happen."""
        step = self.ledger.next_step
        if kind == "observe":
            self.ledger.observe(step, float(number))
            self.entered.append(("observation", step, float(number)))
        elif kind == "adapt" and step and self.entered[-1][0] == "observation":
            adapt(self.ledger, step - 1, float(number))
            self.entered.append(("update", step - 1, float(number)))
        elif kind == "flow":
            self.settle()
        elif kind in ("send", "take"):
            self.send(all_of_it=kind == "send")
        elif kind == "arrive" and self.outbox.messages:
            self.answers.append(self.daemon.answer(self.outbox.messages.pop(0)))
        elif kind in ("answer", "late"):
            self.take_in(self.streams[-1] if kind == "answer" else self.streams[0])
        elif kind == "store":
            self.daemon.durable = min(self.daemon.durable + 1 + number, len(self.daemon.events))
        elif kind == "cut":
            self.join()
        elif kind == "kill":
            del self.daemon.events[self.daemon.durable :]
            self.join()

    def send(self, *, all_of_it: bool) -> None:
        """Send what waits, or only the next message of it: a break may come before the one behind."""
        if all_of_it:
            self.outbox.poke(self.ledger)
        else:
            self.outbox.messages += map(batch_to_proto, self.conversation.take(self.ledger))

    def take_in(self, stream: tuple[Conversation, deque[pb.StreamAdviceResponse]]) -> None:
        """Have the next answer of a stream come in."""
        conversation, answers = stream
        if answers:
            conversation.receive(read(answers.popleft()))

    def settle(self) -> None:
        """Let everything arrive."""
        self.do("send", 0)
        while self.outbox.messages or self.answers:
            self.do("arrive", 0)
            self.do("answer", 0)


HAPPENINGS = st.sampled_from(
    [
        *["observe"] * 3,
        *["adapt"] * 3,
        *["send", "take"] * 2,
        *["arrive"] * 2,
        *["answer", "late"],
        *["flow"] * 2,
        *["store", "kill"] * 2,
        "cut",
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(HAPPENINGS, st.integers(0, 3)), max_size=60))
def test_the_daemon_gets_everything_in_order(happenings: list[tuple[str, int]]) -> None:
    """However streams break and daemons die, it ends with every observation and update, in their order."""
    scene = Scene()
    for kind, number in happenings:
        scene.do(kind, number)
    scene.settle()
    assert scene.daemon.events == scene.entered
    assert scene.ledger.backlog.last_unanswered() is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(HAPPENINGS, st.integers(0, 3)), max_size=60))
def test_nothing_is_kept_that_is_durable(happenings: list[tuple[str, int]]) -> None:
    """Once all is stored and another step was answered, the client keeps the losses of that step alone.

    Of updates it keeps that of the step before at most: it is behind the last observation known as stored.
    """
    scene = Scene()
    for kind, number in happenings:
        scene.do(kind, number)
    scene.settle()
    scene.daemon.durable = len(scene.daemon.events)
    scene.do("observe", 0)
    scene.settle()
    last = scene.ledger.next_step - 1
    assert scene.daemon.durable_step == last - 1
    assert {update.step for update in scene.ledger.backlog.updates} <= {last - 1}
    if last:  # for a daemon that lost everything the client would raise
        with pytest.raises(mlrs.errors.RecordGapError, match=f"keeps losses from step {last} on only"):
            scene.ledger.rejoin(opened(0))


def test_late_answers_of_a_killed_daemon() -> None:
    """What a daemon answered and lost is sent to the next, also if its answer comes in only then."""
    scene = Scene()
    for kind in ("observe", "adapt", "send", "arrive", "arrive", "kill", "late", "late", "flow"):
        scene.do(kind, 1)
    assert scene.daemon.events == scene.entered
    assert len(scene.entered) == 2


@given(lines=st.integers(0, 60))
def test_adapting_can_be_broken_off(lines: int) -> None:
    """Wherever an interrupt ends `adapt`, doing it again enters the update once, and sends it."""
    ledger = ledger_at()
    ledger.observe(0, 1.0)
    left = lines

    def interrupt(frame: Any, _event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_globals["__name__"].startswith("mlrs"):
            return None  # Python may collect garbage here, and others listen to that
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return interrupt

    with contextlib.suppress(KeyboardInterrupt):
        before = sys.gettrace()
        try:
            sys.settrace(interrupt)
            adapt(ledger, 0)
        finally:
            sys.settrace(before)
    sent = ledger.backlog.take_unsent(9)
    update = adapt(ledger, 0)
    sent += ledger.backlog.take_unsent(9)
    assert ledger.backlog.take_unsent(9) == []
    assert [type(item) for item in sent] == [Entry, Update]
    assert sent[-1] is update
    assert ledger.backlog.last_unanswered() is update


def test_a_repeated_update_is_the_same() -> None:
    """The update of a step made again of its numbers is the same; of others it is refused."""
    ledger = ledger_at()
    ledger.observe(0, 1.0)
    update, is_new = ledger.adapt(0, (2.0,), (math.nan,))
    assert is_new
    assert ledger.adapt(0, (2.0,), (math.nan,)) == (update, False)
    with pytest.raises(mlrs.errors.StaleStepError, match="another alignment"):
        ledger.adapt(0, (3.0,), (math.nan,))
    with pytest.raises(mlrs.errors.StaleStepError, match="another alignment"):
        ledger.adapt(0, (2.0,), (None,))


def test_only_the_newest_step_can_be_adapted_to() -> None:
    """A step that was not observed, or that another was observed after, is refused on the spot."""
    ledger = ledger_at()
    with pytest.raises(mlrs.errors.StepAheadError, match="not observed yet"):
        adapt(ledger, 0)
    ledger.observe(0, 1.0)
    ledger.observe(1, 1.0)
    with pytest.raises(mlrs.errors.StaleStepError, match="step 1 was observed already"):
        adapt(ledger, 0)
    adapt(ledger, 1)


def test_a_run_without_meta_mode() -> None:
    """A run that is not in meta mode says so, and how to have one that is."""
    run = OpenedRun(run_from_proto(pb.Run(run_id="a")), handle=1, created=True, took_over=False)
    plain = opened_ledger(Opened((run,)), Entry)
    plain.observe(0, 1.0)
    with pytest.raises(mlrs.errors.ConfigMismatchError, match="meta=True"):
        adapt(plain, 0)


def test_updates_fall_with_their_step() -> None:
    """Where an observation is refused, its update and those of later steps are refused, too."""
    ledger = ledger_at()
    entries, updates = [], []
    for step in range(3):
        entries.append(ledger.observe(step, 1.0)[0])
        updates.append(adapt(ledger, step))
    ledger.refuse(entries[1], mlrs.errors.DaemonError("no"))
    assert not updates[0].done
    for update in updates[1:]:
        with pytest.raises(mlrs.errors.DaemonError, match="no"):
            update.adaptations()
    assert ledger.next_step == 1


def test_a_refused_update() -> None:
    """A refusal of an update is its alone; one that the fallback had answered is raised at the next step."""
    ledger = ledger_at(fallback=Fallback(lambda _: 0.5))
    conversation = Conversation("host:1")
    conversation.transport = outbox = Outbox(conversation)
    conversation.join(ledger)
    ledger.observe(0, 1.0)
    refused = adapt(ledger, 0)
    outbox.poke(ledger)
    conversation.receive(advised([0.1]))
    results = pb.MetaResults(results=[pb.MetaResult()])
    results.errors.add(index=0, reason=pb.ERROR_REASON_STALE_STEP, message="no")
    answer = read(pb.StreamAdviceResponse(meta_results=results))
    assert conversation.receive(answer) == (ledger, None, False)
    with pytest.raises(mlrs.errors.StaleStepError, match="no"):
        refused.adaptations()
    ledger.observe(1, 1.0)
    stood_in = adapt(ledger, 1)
    outbox.poke(ledger)
    ledger.stand_in(stood_in)
    conversation.receive(advised([0.1]))
    conversation.receive(answer)
    assert stood_in.adaptations()[0].outcome == MetaOutcome.FALLBACK
    with pytest.raises(mlrs.errors.StaleStepError, match="no"):
        ledger.observe(2, 1.0)
    ledger.observe(2, 1.0)


def test_the_fallback_answers_with_what_was_advised() -> None:
    """While the daemon is away an update's learning rate is that of its step, by whomever it was advised."""
    ledger = ledger_at(fallback=Fallback(lambda step: 0.5 + step))
    entry, _ = ledger.observe(0, 1.0)
    ledger.answer(entry, advised([0.1]), 0)
    update = adapt(ledger, 0)
    ledger.stand_in(update)
    ledger.observe(1, 1.0)
    other = adapt(ledger, 1)
    ledger.stand_in(other)
    found = [made.adaptations()[0] for made in (update, other)]
    assert [adaptation.learning_rate for adaptation in found] == [0.1, 1.5]
    assert [adaptation.applied for adaptation in found] == [False, False]


def test_answers_of_another_kind() -> None:
    """A daemon that answers updates as if they were observations, as an old one does, is found out."""
    ledger = ledger_at()
    conversation = Conversation("host:1")
    conversation.transport = outbox = Outbox(conversation)
    conversation.join(ledger)
    ledger.observe(0, 1.0)
    adapt(ledger, 0)
    outbox.poke(ledger)
    conversation.receive(advised([0.1]))
    with pytest.raises(mlrs.errors.DaemonError, match="newer version"):
        conversation.receive(advised([]))


def test_updates_of_a_large_sweep_are_split() -> None:
    """No message has more updates than the contract allows, and the answer is whole once all have come."""
    runs = MAX_UPDATES + 2
    ledger = ledger_at(1, runs=runs)
    conversation = Conversation("host:1")
    conversation.transport = outbox = Outbox(conversation)
    conversation.join(ledger)
    alignments = [math.nan, *map(float, range(1, runs))]
    update, _ = ledger.adapt(0, alignments, [None] * runs)
    outbox.poke(ledger)
    assert [len(message.meta_updates.updates) for message in outbox.messages] == [MAX_UPDATES, 1]
    assert outbox.messages[1].meta_updates.updates[0].run_handle == runs - 1
    for message in outbox.messages:
        assert not update.done
        results = [pb.MetaResult(learning_rate=sent.alignment) for sent in message.meta_updates.updates]
        answer = pb.StreamAdviceResponse(meta_results=pb.MetaResults(results=results))
        conversation.receive(read(answer))
    found = update.adaptations()
    assert [adaptation.learning_rate for adaptation in found] == [None, *alignments[1:]]
    assert found[0].outcome == MetaOutcome.SKIPPED


def test_updates_of_a_sweep_answered_in_part() -> None:
    """Where a break comes between the answers of an update, a daemon that lost it answers all of it again."""
    ledger = ledger_at(1, runs=2)
    update, _ = ledger.adapt(0, [1.0, 2.0], [None, None])
    assert ledger.backlog.take_unsent(9) == [update]
    ledger.adapted(update, 0, adapted(0.1))
    ledger.rejoin(opened(1, runs=2))
    assert ledger.backlog.take_unsent(9) == [update]
    for index, rate in enumerate([0.1, 0.2]):
        assert ledger.backlog.last_unanswered() is update
        ledger.adapted(update, index, adapted(rate))
    assert ledger.backlog.last_unanswered() is None
    assert [adaptation.learning_rate for adaptation in update.adaptations()] == [0.1, 0.2]


def test_rejoining_goes_through_no_updates_that_wait() -> None:
    """However many updates wait, a run joins again quickly: only what was answered is looked at again."""
    ledger = ledger_at()
    for step in range(4):
        ledger.observe(step, 1.0)
        adapt(ledger, step)
    waiting = ledger.backlog.updates._unanswered
    ledger.rejoin(opened())
    assert ledger.backlog.updates._unanswered is waiting
    sent = [ledger.backlog.take_unsent(9) for _ in range(9)]
    kinds = [(type(item), item.step) for items in sent for item in items]
    assert kinds == [(kind, step) for step in range(4) for kind in (Entry, Update)]


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"meta": "yes"}, "meta"),
        ({"meta": Meta(order="sideways")}, "meta.order"),
        ({"meta": Meta(scope="all")}, "meta.scope"),
        ({"meta": Meta(every=0)}, "meta.every"),
        ({"meta": Meta(learning_rate=0.0)}, "meta.learning_rate"),
        ({"meta": Meta(weight_decay=-1.0)}, "meta.weight_decay"),
        ({"meta": Meta(max_change=11.0)}, "meta.max_change"),
        ({"meta": Meta(clip=0.5)}, "meta.clip"),
        ({"meta": Meta(blow_up=math.nan)}, "meta.blow_up"),
        ({"meta": True, "policy": "cosine"}, "meta"),
    ],
)
def test_wrong_configs(advisor: mlrs.Advisor, given_: dict[str, Any], field: str) -> None:
    """What is wrong of a meta mode is found before anything is sent, by its name."""
    with pytest.raises(InvalidArgumentError) as caught:
        open_run(advisor, "a", **given_)
    assert caught.value.field == field
