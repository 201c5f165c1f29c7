"""What goes to the daemon, and goes again, in its order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlrs.ledger.order import Outgoing, in_order


def take(outgoing: Outgoing[int], limit: int) -> list[int]:
    """Send so many at most."""
    sent: list[int] = []
    while len(sent) < limit and (item := outgoing.first()) is not None:
        sent.append(item)
        outgoing.pass_on()
    return sent


@given(st.lists(st.tuples(st.sampled_from(["enter", "send", "break", "answer"]), st.integers(1, 4))))
def test_all_goes_again_in_its_order(happenings: list[tuple[str, int]]) -> None:
    """However often a stream breaks, and wherever, the next one gets all kept items, in order."""
    outgoing: Outgoing[int] = Outgoing()
    entered = sent = answered = 0
    for kind, number in happenings:
        if kind == "enter":
            for item in range(entered, entered + number):
                outgoing.enter(item)
            entered += number
        elif kind == "send":
            taken = take(outgoing, number)
            assert taken == list(range(sent, min(sent + number, entered)))
            sent += len(taken)
        elif kind == "break":
            outgoing.again()
            sent = answered
        else:
            answered = min(answered + number, sent)
            outgoing.let_go(lambda item, bound=answered: item >= bound)
    outgoing.again()
    assert take(outgoing, entered + 1) == list(range(answered, entered))


def test_cleared() -> None:
    """What is forgotten goes no more, and what is entered later does."""
    outgoing: Outgoing[int] = Outgoing()
    for item in range(3):
        outgoing.enter(item)
    take(outgoing, 1)
    outgoing.clear()
    outgoing.again()
    outgoing.enter(3)
    assert take(outgoing, 9) == [3]


@given(lacked=st.sets(st.integers(0, 20)), waiting=st.sets(st.integers(0, 20)))
def test_steps_in_order(lacked: set[int], waiting: set[int]) -> None:
    """Items that are lacking again are merged in order with those that wait, each step once."""
    found = in_order(
        dict.fromkeys(sorted(lacked), "lacked"), dict.fromkeys(sorted(waiting - lacked), "waits")
    )
    assert list(found) == sorted(lacked | waiting)
    assert {step for step, kind in found.items() if kind == "lacked"} == lacked


def test_nothing_lacked_moves_nothing() -> None:
    """Where nothing is lacked again, a million that wait are not gone through."""
    waiting = {1: "one", 2: "two"}
    assert in_order({}, waiting) is waiting
