"""What the client says of a daemon that answers and does not store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs.ledger import outage as _outage
from mlrs.ledger.outage import STALL_S, StorageStall


class Clock:
    """A monotonic clock that tests move on."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


def logged(answers: Sequence[tuple[float, int, int]]) -> list[str]:
    """Return what is logged of answers: seconds after the one before, the durable step, the step."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_outage, "time", clock)
        standstill = StorageStall("run 'a'")
        news = []
        for pause_s, durable_step, step in answers:
            clock.now += pause_s
            news.append(standstill.news(durable_step, step))
    return [text for text in news if text is not None]


def test_a_store_that_stands_is_told_once_and_its_end_once() -> None:
    """However long nothing is stored, that is one warning, and one says that it is over."""
    stalled = [(0.1, 4, 5 + step) for step in range(1000)]
    first, second = logged([(0.1, 4, 5), *stalled, (0.1, 900, 1005), (0.1, 1004, 1006)])
    assert "stored nothing after step 4" in first
    assert "stores again" in second


@pytest.mark.parametrize("pause_s", [0.0003, 1.0, 10.0])
def test_slow_and_quick_trainings_are_told(pause_s: float) -> None:
    """A stalled store is logged at any pace of training, with the third answer where that is slow."""
    answers = [(pause_s, 0, step + 1) for step in range(int(2 * STALL_S / pause_s) + 4)]
    assert len(logged(answers)) == 1


@given(st.lists(st.sampled_from([0.0003, 0.2, 3600.0]), max_size=30), st.integers(0, 3))
def test_a_store_that_works_is_never_told(pauses: list[float], behind: int) -> None:
    """Training at any pace, with any pauses, logs nothing while each answer finds older steps stored."""
    assert logged([(pause, step - behind, step) for step, pause in enumerate(pauses)]) == []


def test_one_pause_is_forgiven() -> None:
    """A frozen client, or daemon, sees the durable step of before for a moment; that is no warning."""
    quick = [(0.001, 4, 5 + step) for step in range(500)]
    assert logged([(0.1, 4, 5), *quick, (3600.0, 4, 505), *quick]) == []


def test_answers_given_again_are_no_standstill() -> None:
    """A run whose old steps are sent again, all of them durable, has nothing that waits to be stored."""
    assert logged([(1.0, 100, step) for step in range(100)]) == []
