"""The order of sending: the order of entering, also when items are sent again.

Every training step waits for the owner's lock, so no operation here iterates over all waiting items. Ctrl-C
may interrupt `Outgoing.enter` and `Outgoing.clear` between any two lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Outgoing(Generic[T]):
    """The items that were sent and may be sent again and, after them, the items to be sent."""

    def __init__(self) -> None:
        self._sent: deque[T] = deque()
        self._unsent: deque[deque[T]] = deque([deque()])  # in order; new items are appended to the last

    def enter(self, item: T) -> None:
        """Append an item to be sent."""
        self._unsent[-1].append(item)

    def first(self) -> T | None:
        """Return the item to be sent next, if any."""
        while not self._unsent[0] and len(self._unsent) > 1:
            self._unsent.popleft()
        return self._unsent[0][0] if self._unsent[0] else None

    def pass_on(self) -> None:
        """Count the item of `first` as sent."""
        self._sent.append(self._unsent[0].popleft())

    def again(self) -> None:
        """Queue all sent items again, before the unsent ones; takes constant time."""
        if self._sent:
            self._unsent.appendleft(self._sent)
            self._sent = deque()

    def let_go(self, is_kept: Callable[[T], bool]) -> None:
        """Forget sent items, from the oldest on, up to the first for which `is_kept` is true."""
        while self._sent and not is_kept(self._sent[0]):
            self._sent.popleft()

    def clear(self) -> None:
        """Forget everything."""
        self._sent = deque()
        self._unsent = deque([deque()])


def in_order(lacked: dict[int, T], waiting: dict[int, T]) -> dict[int, T]:
    """Return the items that a daemon lacks again, merged with those that were waiting, ordered by step.

    The lacking items are nearly always older than all waiting ones, and then nothing is sorted.
    """
    if not lacked:
        return waiting
    first = next(iter(waiting), None)
    if first is None or all(step < first for step in lacked):
        return lacked | waiting
    both = lacked | waiting
    return {step: both[step] for step in sorted(both)}
