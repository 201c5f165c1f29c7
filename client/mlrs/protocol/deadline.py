"""Points in time, and pauses between attempts."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""Between attempts: the longest that the first pause may be, and what its doubling ends at."""
_jitter = random.Random()  # noqa: S311 # not a secret; of its own: a training loop may have seeded the shared one


class Deadline:
    """A point in time, counted from now.

    Attributes:
        timeout_s: how far away it was, in seconds.
        reach_s: an earlier one, for a daemon that cannot be reached; `None`: the same.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.reach_s: float | None = None
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the seconds that are left; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())

    def spent_s(self) -> float:
        """Return the seconds since it was made, at most `timeout_s`."""
        return self.timeout_s - self.left_s()

    def earlier(self, timeout_s: float) -> Deadline:
        """Return a deadline that began when this one did."""
        other = Deadline(timeout_s)
        other._end = self._end - self.timeout_s + timeout_s
        return other


class Backoff:
    """Pauses that double, each cut short at random (full jitter): clients that broke together spread."""

    def __init__(self) -> None:
        self._longest_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        longest_s, self._longest_s = self._longest_s, min(2 * self._longest_s, LONGEST_PAUSE_S)
        return _jitter.uniform(0.0, longest_s)
