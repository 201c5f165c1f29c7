"""Points in time, and pauses between attempts."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
"""The upper bounds of the first pause between attempts, and of all pauses, in seconds."""
_jitter = random.Random()  # noqa: S311 # not a secret; not the shared one, which a training loop may have seeded


class Deadline:
    """A point in time, counted from now.

    Attributes:
        timeout_s: the time from its creation to the deadline, in seconds.
        reach_s: a shorter time for a daemon that cannot be reached, in seconds; `None`: the same.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.reach_s: float | None = None
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return the time that is left, in seconds; 0 after the deadline."""
        return max(0.0, self._end - time.monotonic())

    def spent_s(self) -> float:
        """Return the time since its creation, in seconds, at most `timeout_s`."""
        return self.timeout_s - self.left_s()

    def earlier(self, timeout_s: float) -> Deadline:
        """Return a deadline with another timeout that was created at the same time."""
        other = Deadline(timeout_s)
        other._end = self._end - self.timeout_s + timeout_s
        return other


class Backoff:
    """Exponential backoff with full jitter, so that clients do not reconnect all at once."""

    def __init__(self) -> None:
        self._longest_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        longest_s, self._longest_s = self._longest_s, min(2 * self._longest_s, LONGEST_PAUSE_S)
        return _jitter.uniform(0.0, longest_s)
