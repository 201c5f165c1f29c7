"""What is polled: a run's record, a list, the daemon's state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from mlrs.errors import InvalidArgumentError
from mlrs.types import RunStatus
from mlrs_web.daemons.daemon import Daemon
from mlrs_web.live.follower import Event, Follower
from mlrs_web.views import records
from mlrs_web.views.plain import encoded

RECORD = "record"


@dataclass(frozen=True)
class Pace:
    """How often is polled: at first, and at most so slowly when nothing changes."""

    first_s: float
    most_s: float

    def pause_s(self, unchanged: int) -> float:
        """Return the pause after so many polls without anything new, in seconds."""
        return float(min(self.first_s * 1.5 ** min(unchanged, 20), self.most_s))


@dataclass(frozen=True)
class Whole:
    """Something that is sent whole whenever it has changed."""

    kind: str
    """The kind of its events."""
    read: Callable[[], Awaitable[bytes]]
    """Reads it from the daemon."""
    pace: Pace

    async def poll(self, followers: Collection[Follower]) -> bool:
        """Read it once, and give it to all who have another one. See `Source`."""
        event = Event(self.kind, await self.read())
        return put(event, followers)

    def pause_s(self, unchanged: int) -> float:
        """See `Source`."""
        return self.pace.pause_s(unchanged)


def put(event: Event, followers: Collection[Follower], what: bytes = b"") -> bool:
    """Give all followers an event; return whether it is new to any. See `Follower.put`."""
    are_new = [follower.put(event, what) for follower in followers]
    return any(are_new)


class Record:
    """What is new in the record of a run: one call for all pages whose records end at the same step."""

    def __init__(self, daemon: Daemon, run_id: str, pace: Pace, finished: Pace) -> None:
        self._daemon = daemon
        self._run_id = run_id
        self._paces = {False: pace, True: finished}
        self._is_finished = False

    async def poll(self, followers: Collection[Follower]) -> bool:
        """Read on from where each page is that has taken what it was given. See `Source`."""
        by_cursor: dict[str, list[Follower]] = {}
        for follower in followers:
            if follower.waits_for(RECORD):
                by_cursor.setdefault(follower.cursor, []).append(follower)
        is_new = False
        for cursor, followers_there in by_cursor.items():
            try:
                is_new |= await self._read_on(cursor, followers_there)
            except InvalidArgumentError as error:  # the cursor came from the browser
                for follower in followers_there:
                    follower.begin(error)
        return is_new

    async def _read_on(self, cursor: str, followers: Collection[Follower]) -> bool:
        async with self._daemon.reading() as advisor:
            summary = await advisor.summary(self._run_id, cursor=cursor)
        self._daemon.saw(summary.run)
        self._is_finished = summary.run.status is RunStatus.FINISHED
        record = records.record(summary)
        event = Event(RECORD, encoded(record), summary.cursor)
        # The newest bucket comes again in every answer, so the buckets say whether anything is new.
        if put(event, followers, encoded({**record, "run": None})):
            return True
        return put(Event("run", encoded(record["run"])), followers)

    def pause_s(self, unchanged: int) -> float:
        """See `Source`."""
        return self._paces[self._is_finished].pause_s(unchanged)
