"""In which order things go to the daemon: that in which they were entered, also when they go again.

The owner's lock is one that every step of training waits for, so nothing here goes through all that waits,
however long the daemon was away. Ctrl-C may end `Outgoing.enter` and `Outgoing.clear` between any two lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outgoing(Generic[T]):
    """What was sent and may have to be sent again, and, behind it, what is still to be sent."""

    def __init__(self) -> None:
        self._sent: deque[T] = deque()
        self._unsent: deque[deque[T]] = deque([deque()])  # one behind the other; the last takes what is new

    def enter(self, item: T) -> None:
        """Have something sent, behind all else."""
        self._unsent[-1].append(item)

    def first(self) -> T | None:
        """Return what is to be sent next, if anything is."""
        while not self._unsent[0] and len(self._unsent) > 1:
            self._unsent.popleft()
        return self._unsent[0][0] if self._unsent[0] else None

    def pass_on(self) -> None:
        """Count what `first` returned as sent."""
        self._sent.append(self._unsent[0].popleft())

    def again(self) -> None:
        """Have all that was sent sent again, ahead of what was not; moves nothing, however much that is."""
        if self._sent:
            self._unsent.appendleft(self._sent)
            self._sent = deque()

    def let_go(self, is_kept: Callable[[T], bool]) -> None:
        """Forget what was sent, from the oldest on, up to the first that is still kept."""
        while self._sent and not is_kept(self._sent[0]):
            self._sent.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._sent = deque()
        self._unsent = deque([deque()])


def in_order(lacked: dict[int, T], waiting: dict[int, T]) -> dict[int, T]:
    """Return what a daemon lacks again and what waited for it all along, by step, in one.

    What it lacks again is nearly always older than all that waited. Only where it is not is anything sorted.
    """
    if not lacked:
        return waiting
    first = next(iter(waiting), None)
    if first is None or all(step < first for step in lacked):
        return lacked | waiting
    both = lacked | waiting
    return {step: both[step] for step in sorted(both)}
