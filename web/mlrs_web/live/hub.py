"""Who follows what, and how many may."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from mlrs_web.live.follower import Follower
from mlrs_web.live.topic import Topic


class TooManyStreamsError(Exception):
    """As many streams are open as the dashboard allows."""


class Hub:
    """The topics that are followed now.

    Attributes:
        most: the most streams.
        streams: the open ones.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.streams = 0
        self._topics: dict[Hashable, Topic] = {}
        self._is_closed = False

    @contextmanager
    def followed(self, key: Hashable, make: Callable[[], Topic], follower: Follower) -> Iterator[None]:
        """Let a page follow a topic for the length of the block.

        Args:
            key: what it is of; whoever names the same key shares the topic.
            make: makes the topic, where nobody follows it yet.
            follower: the page.
        """
        self.check_room()
        topic = self._topics.get(key) or self._topics.setdefault(key, make())
        self.streams += 1
        topic.join(follower)
        if self._is_closed:
            follower.close()
        try:
            yield
        finally:
            self.streams -= 1
            if not topic.leave(follower) and self._topics.get(key) is topic:
                del self._topics[key]

    def check_room(self) -> None:
        """Raise `TooManyStreamsError` if no other stream may be opened."""
        if self.streams >= self.most:
            raise TooManyStreamsError(
                f"{self.streams} streams are open, which is the most; close pages that nobody looks at"
            )

    def end_session(self, session: str) -> None:
        """End the streams of a browser that is signed in no more."""
        for topic in self._topics.values():
            topic.end_session(session)

    def close(self) -> None:
        """End all streams, those that are opened later, too."""
        self._is_closed = True
        for topic in list(self._topics.values()):
            topic.close()
