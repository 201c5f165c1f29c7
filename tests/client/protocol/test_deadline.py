"""Points in time, and pauses between attempts."""

from __future__ import annotations

import random

from mlrs.protocol.deadline import FIRST_PAUSE_S, LONGEST_PAUSE_S, Backoff


def test_pauses_double() -> None:
    """The longest that a pause may be doubles up to a limit."""
    pauses = Backoff()
    longest_s = FIRST_PAUSE_S
    for _ in range(20):
        assert 0.0 <= pauses.next_s() <= longest_s
        longest_s = min(2 * longest_s, LONGEST_PAUSE_S)


def test_pauses_differ() -> None:
    """Two clients that broke together do not come back together."""
    assert len({Backoff().next_s() for _ in range(10)}) == 10


def test_a_seeded_training_loop_is_left_alone() -> None:
    """What a training loop draws at random does not depend on how often a connection broke."""
    random.seed(7)
    expected = random.random()  # noqa: S311
    random.seed(7)
    Backoff().next_s()
    assert random.random() == expected  # noqa: S311
