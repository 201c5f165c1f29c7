"""What several pages follow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from mlrs.errors import MlrsError, RunNotFoundError, UnauthenticatedError, UnavailableError
from mlrs_web.live.follower import Event, Follower
from mlrs_web.live.hub import Hub, TooManyStreamsError
from mlrs_web.live.topic import Topic


class Counter:
    """A source that counts its polls, and says the count; or fails."""

    def __init__(self, failure: MlrsError | None = None) -> None:
        self.polls = 0
        self.failure = failure
        self.polled = asyncio.Event()

    async def poll(self, followers: Collection[Follower]) -> bool:
        """Count."""
        self.polls += 1
        self.polled.set()
        if self.failure is not None:
            raise self.failure
        for follower in followers:
            follower.put(Event("count", str(self.polls).encode()))
        return True

    def pause_s(self, unchanged: int) -> float:  # noqa: ARG002  # the protocol's
        """Poll often."""
        return 0.01


def topic_of(source: Counter) -> Topic:
    """Return a topic whose token is never refused."""
    return Topic(source, lambda: None)


async def take(follower: Follower) -> list[tuple[str, bytes]]:
    """Return the next events of a follower, at most ten seconds later."""
    events = await follower.take(10.0)
    assert events
    return [(event.kind, event.data) for event in events]


async def test_one_poll_serves_all_pages() -> None:
    """Two pages get the same events from the same polls; polls end with the last page."""
    hub, source = Hub(10), Counter()
    topic, one, other = topic_of(source), Follower(), Follower()
    with hub.followed("key", lambda: topic, one):
        await one.begun
        with hub.followed("key", lambda: topic_of(Counter()), other):
            await other.begun
            assert (await take(one))[-1][1] == (await take(other))[-1][1] == str(source.polls).encode()
            assert hub.streams == 2
    assert topic._task is not None
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10.0):
            await topic._task
    assert hub.streams == 0


async def test_a_slow_page_gets_the_newest_and_no_backlog() -> None:
    """A page that takes nothing for many polls is then given one event, the newest."""
    hub, source, slow = Hub(10), Counter(), Follower()
    with hub.followed("key", lambda: topic_of(source), slow):
        while source.polls < 20:
            source.polled.clear()
            await source.polled.wait()
        await slow.begun
        ((kind, data),) = await take(slow)
    assert kind == "count"
    assert int(data) >= 19


async def test_away_and_back_are_said_once() -> None:
    """Pages are told when the daemon does not answer, also those that come then, and when it is back."""
    hub, source, page, late = Hub(10), Counter(), Follower(), Follower()
    source.failure = UnavailableError("no daemon")
    topic = topic_of(source)
    with hub.followed("key", lambda: topic, page):
        await page.begun
        assert await take(page) == [("away", b'{"message":"no daemon"}')]
        with hub.followed("key", lambda: topic, late):
            assert await take(late) == [("away", b'{"message":"no daemon"}')]
            source.failure = None
            for follower in (page, late):
                assert ("back", b"{}") in await take(follower)


async def test_a_page_is_told_why_there_is_nothing_to_follow() -> None:
    """Where the first poll fails for good, whoever wants to follow gets the reason."""
    hub, page = Hub(10), Follower()
    with hub.followed("key", lambda: topic_of(Counter(RunNotFoundError("no such run"))), page):
        with pytest.raises(RunNotFoundError):
            await page.begun
        assert await page.take(1.0) is None


async def test_a_refused_token_ends_the_streams_and_is_reported() -> None:
    """Where the daemon stops accepting the token, streams end, and the sign-in is dropped."""
    hub, source, page, refused = Hub(10), Counter(), Follower(), asyncio.Event()
    with hub.followed("key", lambda: Topic(source, refused.set), page):
        await page.begun
        source.failure = UnauthenticatedError("revoked")
        await refused.wait()
        while (events := await page.take(1.0)) is not None:
            assert events


async def test_a_defect_of_a_source_ends_the_streams(caplog: pytest.LogCaptureFixture) -> None:
    """A poll that fails in a way nobody expected is logged, and no page waits for ever."""

    class Broken(Counter):
        async def poll(self, followers: Collection[Follower]) -> bool:  # noqa: ARG002  # the protocol's
            raise ZeroDivisionError

    hub, page = Hub(10), Follower()
    with hub.followed("key", lambda: topic_of(Broken()), page), pytest.raises(ZeroDivisionError):
        await page.begun
    assert "please report it" in caplog.text


async def test_streams_are_bounded() -> None:
    """One stream more than the bound is refused; when another one ends, there is room again."""
    hub = Hub(1)
    with (
        hub.followed("key", lambda: topic_of(Counter()), Follower()),
        pytest.raises(TooManyStreamsError, match="1 streams"),
    ):
        hub.check_room()
    hub.check_room()


async def test_the_end_of_the_dashboard_ends_all_streams() -> None:
    """When the hub is closed, open streams end, and those that are opened later end at once."""
    hub, page, late = Hub(10), Follower(), Follower()
    with hub.followed("key", lambda: topic_of(Counter()), page):
        await page.begun
        hub.close()
        assert await page.take(10.0) is None
        with hub.followed("key", lambda: topic_of(Counter()), late):
            assert await late.take(10.0) is None
