"""Validation losses in a ledger: which observation each one travels with."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs.errors import DaemonError, InvalidArgumentError
from mlrs.ledger.entries import Entry, Observation
from mlrs.ledger.ledger import Ledger
from mlrs.values.signals import Validation
from tests.client.ledger.ledgers import advised, opened_ledger
from tests.client.ledger.test_ledger import opened


def ledger_at(next_step: int = 0) -> Ledger[Entry]:
    """Return the ledger of a run at this step."""
    return opened_ledger(opened(next_step), Entry.of)


def carried(ledger: Ledger[Entry], step: int) -> Validation | None:
    """Observe a step; return the validation loss that travels with it."""
    return ledger.observe(step, 1.0)[0].validation


def test_the_newest_travels_with_the_next_observation() -> None:
    """It travels once, with a new step; a step that is observed again keeps its own."""
    ledger = ledger_at(5)
    ledger.validate(4, 0.5)
    ledger.validate(5, 0.25)
    assert carried(ledger, 5) == (5, 0.25)
    ledger.validate(6, 0.125)
    assert carried(ledger, 5) == (5, 0.25)
    assert carried(ledger, 6) == (6, 0.125)
    assert carried(ledger, 7) is None


def test_calls_that_are_repeated_as_they_were_send_nothing_twice() -> None:
    """A loop that validates and observes a step again leaves nothing for the next step."""
    ledger = ledger_at()
    for _ in range(2):
        ledger.validate(0, 0.5)
        assert carried(ledger, 0) == (0, 0.5)
    assert carried(ledger, 1) is None


def test_a_step_of_the_past_takes_none_of_a_later_step() -> None:
    """A validation loss of a later step waits for that step."""
    ledger = ledger_at(5)
    ledger.validate(5, 0.5)
    assert carried(ledger, 2) is None
    assert carried(ledger, 5) == (5, 0.5)


def test_a_step_that_is_sent_again_takes_none_that_waits() -> None:
    """A step that is durable, and so forgotten, is observed again as it was: what waits is for a new step."""
    ledger = ledger_at(5)
    ledger.validate(3, 0.5)
    assert carried(ledger, 4) is None
    assert carried(ledger, 5) == (3, 0.5)


def test_after_a_refusal_it_waits_again() -> None:
    """The step that is observed instead of a refused one has the validation loss, unless a newer one came."""
    ledger = ledger_at()
    ledger.validate(0, 0.5)
    ledger.refuse(ledger.observe(0, 1.0)[0], DaemonError("no"))
    assert ledger.observe(0, 2.0)[0].validation == (0, 0.5)
    ledger.refuse(ledger.backlog.unanswered()[0], DaemonError("no"))
    ledger.validate(0, 0.25)
    entry, _ = ledger.observe(0, 3.0)
    assert entry.validation == (0, 0.25)
    ledger.answer(entry, advised([0.1]), 0)
    assert carried(ledger, 1) is None


def test_one_of_a_later_step_waits_for_it() -> None:
    """A loop whose losses are read late may validate a step before the steps before it are observed."""
    ledger = ledger_at(3)
    ledger.validate(5, 0.5)
    assert [carried(ledger, step) for step in (3, 4, 5, 6)] == [None, None, (5, 0.5), None]


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_each_of_several_that_are_ahead_waits_for_its_own_step(lag: int) -> None:
    """A loop that validates every step, and whose losses are read some steps later, loses none of them."""
    ledger = ledger_at()
    carries = []
    for step in range(20):
        ledger.validate(step, float(step))
        if step >= lag:
            carries.append(carried(ledger, step - lag))
    assert carries == [(step, float(step)) for step in range(20 - lag)]


def test_one_of_a_step_far_ahead_is_refused() -> None:
    """A number that cannot be a step, as one of samples, is refused, and what waited still does."""
    ledger = ledger_at(3)
    ledger.validate(3, 0.5)
    with pytest.raises(
        InvalidArgumentError, match="at most 100 beyond the step to observe next, 3"
    ) as caught:
        ledger.validate(104, 0.25)
    assert caught.value.field == "step"
    assert carried(ledger, 3) == (3, 0.5)


def test_entries_that_bring_their_own_keep_it() -> None:
    """An observation of a file or of another ledger has its own, and leaves what waits."""
    ledger = ledger_at()
    ledger.validate(0, 0.5)
    own = Validation(0, 0.25)
    entry, _ = ledger.observe(0, Observation(1.0, validation=own))
    assert entry.validation == own
    assert entry.observed() == Observation(1.0, validation=own)
    assert carried(ledger, 1) == (0, 0.5)


@given(lines=st.integers(0, 90))
def test_observing_can_be_broken_off(lines: int) -> None:
    """Wherever an interrupt ends `observe`, doing it again sends the validation loss with that step only."""
    ledger = ledger_at()
    ledger.observe(0, 1.0)
    ledger.validate(1, 0.5)
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
    entry, _ = ledger.observe(1, 2.0)
    assert entry.validation == (1, 0.5)
    assert [item.step for item in ledger.backlog.take_unsent(9) if item is entry or item.step == 0] == [0, 1]
    assert carried(ledger, 2) is None
