"""The client's record of one run."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs.errors import DaemonError, RecordGapError, StaleStepError, StepAheadError
from mlrs.ledger import backlog as module
from mlrs.ledger.entries import Entry
from mlrs.ledger.fallback import Fallback
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_result import Opened, OpenedRun
from mlrs.wire.convert import run_from_proto
from mlrs_proto import v1 as pb
from tests.client.ledger.ledgers import advised, opened_ledger


def opened(next_step: int = 0, durable_step: int = -1) -> Opened:
    """Return a daemon's word on a run."""
    run = pb.Run(run_id="a", next_step=next_step, durable_step=None if durable_step < 0 else durable_step)
    return Opened((OpenedRun(run_from_proto(run), handle=7, created=False, took_over=False),))


def ledger_at(next_step: int = 0, durable_step: int = -1) -> Ledger[Entry]:
    """Return the ledger of a run at this step."""
    return opened_ledger(opened(next_step, durable_step), Entry)


def advise(ledger: Ledger[Entry], entry: Entry, durable_step: int = -1) -> None:
    """Answer an entry."""
    ledger.answer(entry, advised([0.1], durable_step), 0)


def rejoined(ledger: Ledger[Entry], next_step: int, durable_step: int = -1) -> list[int]:
    """Join again at a daemon at this step; return the steps that are sent then."""
    ledger.rejoin(opened(next_step, durable_step))
    return [entry.step for entry in ledger.backlog.take_unsent(99)]


def test_steps_follow_one_another() -> None:
    """The next step is taken, one beyond it is refused with the step that is due."""
    ledger = ledger_at(5)
    with pytest.raises(StepAheadError, match="next step is 5") as caught:
        ledger.observe(6, 1.0)
    assert caught.value.next_step == 5
    entry, is_new = ledger.observe(5, 1.0)
    assert is_new
    assert ledger.next_step == 6
    assert not entry.done


def test_repeats_come_from_the_record() -> None:
    """A step observed again with its loss is the same entry; NaN is the same loss as NaN."""
    ledger = ledger_at()
    first, _ = ledger.observe(0, 1.0)
    nan, _ = ledger.observe(1, math.nan)
    assert ledger.observe(0, 1.0) == (first, False)
    assert ledger.observe(1, math.nan) == (nan, False)


def test_another_loss_is_refused() -> None:
    """A step observed again with another loss is refused; the message names the way back."""
    ledger = ledger_at()
    ledger.observe(0, 1.0)
    with pytest.raises(StaleStepError, match="resume_from=0"):
        ledger.observe(0, 2.0)


def test_steps_of_the_past_are_asked_of_the_daemon() -> None:
    """A step that this client never saw, or no longer keeps, is sent."""
    ledger = ledger_at(5)
    entry, is_new = ledger.observe(2, 1.0)
    assert is_new
    assert ledger.next_step == 5
    assert ledger.backlog.last_unanswered() is entry
    advise(ledger, entry)
    assert ledger.backlog.last_unanswered() is None


def test_durable_observations_are_let_go() -> None:
    """Durable observations are dropped."""
    ledger = ledger_at()
    entries = [ledger.observe(step, 1.0)[0] for step in range(4)]
    for entry in entries[:3]:
        advise(ledger, entry)
    assert ledger.backlog.has_volatile()
    advise(ledger, entries[3], durable_step=3)
    assert not ledger.backlog.has_volatile()


def test_refused_steps_come_next_again() -> None:
    """After a refusal the step is due again, and the steps after it are refused, too."""
    ledger = ledger_at()
    entries = [ledger.observe(step, 1.0)[0] for step in range(3)]
    advise(ledger, entries[0])
    ledger.refuse(entries[1], DaemonError("no"))
    assert ledger.next_step == 1
    for entry in entries[1:]:
        with pytest.raises(DaemonError, match="no"):
            entry.result()
    again, is_new = ledger.observe(1, 2.0)
    assert is_new
    ledger.refuse(entries[2], DaemonError("late"))  # the answer to what fell
    assert not again.done
    assert ledger.next_step == 2


def test_rejoining_beyond_what_is_known() -> None:
    """A daemon that is further than the client says that someone else moved the run."""
    with pytest.raises(RecordGapError, match="another process") as caught:
        ledger_at(3).rejoin(opened(4))
    assert caught.value.next_step == 4


def test_rejoining_before_what_is_kept() -> None:
    """A daemon that lost more than the client keeps says from where to continue."""
    with pytest.raises(RecordGapError, match="resume_from") as caught:
        ledger_at(3).rejoin(opened(2))
    assert caught.value.next_step == 2


def test_kept_observations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest observation is dropped, and a daemon that needs it gives an error."""
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    monkeypatch.setattr(module, "LEAST_KEPT", 1)
    ledger = ledger_at()
    for step in range(5):
        advise(ledger, ledger.observe(step, 1.0)[0])
    assert rejoined(ledger, 2) == [2, 3, 4]
    with pytest.raises(RecordGapError):
        ledger.rejoin(opened(1))


@given(observed=st.integers(0, 30), data=st.data())
def test_nothing_is_lost(observed: int, data: st.DataObject) -> None:
    """Rejoining sends all that the daemon lacks or did not answer, in order, wherever it died."""
    ledger = ledger_at()
    entries = [ledger.observe(step, float(step))[0] for step in range(observed)]
    answered = data.draw(st.integers(0, observed))
    durable = data.draw(st.integers(0, observed))
    for entry in entries[:answered]:
        advise(ledger, entry, durable_step=min(durable, entry.step + 1) - 1)
    expected = data.draw(st.integers(max(0, min(durable, answered)), observed))
    again = rejoined(ledger, expected, expected - 1)
    assert again == sorted(set(again))
    assert set(range(expected, observed)) <= set(again)
    assert set(range(answered, observed)) <= set(again)


def test_a_step_observed_again_is_sent_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a break everything is sent in the order in which it was, also a step of long ago asked again."""
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    monkeypatch.setattr(module, "LEAST_KEPT", 1)
    ledger = ledger_at()
    for step in range(4):
        advise(ledger, ledger.observe(step, 1.0)[0])
    for step in (4, 0, 5):  # 0 was dropped
        ledger.observe(step, 1.0)
    for _ in range(2):
        assert rejoined(ledger, 4) == [4, 0, 5]
    ledger.rejoin(opened(4))
    assert [entry.step for entry in ledger.backlog.take_unsent(2)] == [4, 0]
    assert rejoined(ledger, 4) == [4, 0, 5]


def test_rejoining_goes_through_nothing_that_waits() -> None:
    """However much waits, a run joins again quickly: what is in order already is left where it is."""
    ledger = ledger_at()
    advise(ledger, ledger.observe(0, 1.0)[0])
    for step in range(1, 4):
        ledger.observe(step, 1.0)
    waiting = ledger.backlog._unanswered
    assert rejoined(ledger, 1) == [1, 2, 3]
    assert ledger.backlog._unanswered is waiting
    assert rejoined(ledger, 0) == [0, 1, 2, 3]


def test_what_is_answered_for_good_is_forgotten() -> None:
    """A ledger holds on to what it has sent until that is durable, and no longer."""
    ledger = ledger_at()
    for step in range(9):
        entry, _ = ledger.observe(step, 1.0)
        ledger.backlog.take_unsent(9)
        advise(ledger, entry, durable_step=step - 2)
    assert [entry.step for entry in ledger.backlog._outgoing._sent] == [7, 8]


def test_a_gap_with_a_fallback() -> None:
    """Where a daemon cannot continue the run, a fallback continues to the end."""
    ledger = opened_ledger(opened(3), Entry, fallback=Fallback(lambda step: 0.5 + step))
    entry, _ = ledger.observe(3, 1.0)
    assert rejoined(ledger, 2) == []
    assert ledger.standby.is_lost
    ledger.stand_in(entry)
    assert entry.result().learning_rate == 3.5
    later, is_new = ledger.observe(4, 1.0)
    assert is_new
    assert ledger.backlog.last_unanswered() is None
    ledger.stand_in(later)
    assert (later.lr(), ledger.next_step, ledger.standby.steps) == (4.5, 5, 2)


@given(lines=st.integers(0, 60))
def test_observing_can_be_broken_off(lines: int) -> None:
    """Wherever an interrupt ends `observe`, doing it again enters the step once, and sends it."""
    ledger = ledger_at()
    ledger.observe(0, 1.0)
    ledger.backlog.take_unsent(9)
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
            ledger.observe(1, 2.0)
        finally:
            sys.settrace(before)
    sent = ledger.backlog.take_unsent(9)
    entry, _ = ledger.observe(1, 2.0)
    sent += ledger.backlog.take_unsent(9)
    assert sent[-1:] == [entry]
    assert ledger.next_step == 2
    assert [entry.step for entry in ledger.backlog._kept] == [0, 1]
    assert ledger.backlog.last_unanswered() is entry
