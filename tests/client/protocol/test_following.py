"""A record that is followed while its run moves, and while replicas come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mlrs
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, Records, lr_sequence
from tests.support.runs import opened

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8]
HALF = len(LOSSES) // 2


@pytest.fixture
def pair() -> Iterator[tuple[FakeDaemon, FakeDaemon]]:
    """Two replicas over the same records."""
    records = Records()
    daemons = FakeDaemon(records), FakeDaemon(records)
    yield daemons
    for daemon in daemons:
        daemon.stop()


async def _some(watch: Any, count: int) -> list[Any]:
    """Return the next stretches with steps in them, so many."""
    found: list[Any] = []
    while len(found) < count:
        chunk = await (anext(watch) if hasattr(watch, "__anext__") else asyncio.to_thread(next, watch))
        found += [chunk] if chunk.losses else []
    return found


def _dies(owner: FakeDaemon) -> None:
    owner.stop()


def _lives(owner: FakeDaemon) -> None:
    """Go on: the run was given away."""


@pytest.mark.parametrize("becomes", [_dies, _lives])
async def test_a_follower_goes_on_where_its_run_does(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon], becomes: Callable[[FakeDaemon], None]
) -> None:
    """When the owner dies or gives the run away, a follower sees each step once, from both owners."""
    first, second = pair
    first.own("a")
    advisor = connect(first.target + "," + second.target, timeout_s=5.0)
    run = await opened(advisor, "a")
    watch = advisor.watch("a", follow=True)
    for step, loss in enumerate(LOSSES[:HALF]):
        await done(run.next_lr(step, loss))
    seen = await _some(watch, HALF)
    first.runs["a"].durable_step = HALF - 1
    second.own("a")
    await asyncio.to_thread(becomes, first)
    for step, loss in enumerate(LOSSES[HALF:], HALF):
        await done(run.next_lr(step, loss))
    seen += await _some(watch, len(LOSSES) - HALF)
    assert [chunk.first_step for chunk in seen] == list(range(len(LOSSES)))
    assert [chunk.learning_rates[0] for chunk in seen] == lr_sequence(LOSSES)
    await done(advisor.close())


async def test_a_follower_waits_for_a_takeover(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """While a dead owner has the run, the others are called again until one has taken it over."""
    first, second = pair
    first.own("a")
    advisor = connect(second.target, timeout_s=5.0)
    await done((await opened(advisor, "a")).next_lr(0, LOSSES[0]))
    watch = advisor.watch("a", follow=True)
    seen = await _some(watch, 1)
    first.runs["a"].durable_step = 0
    await asyncio.to_thread(first.stop)
    first.runs["a"].losses.append(LOSSES[1])
    asyncio.get_running_loop().call_later(0.5, second.own, "a")
    seen += await _some(watch, 1)
    assert [chunk.first_step for chunk in seen] == [0, 1]
    await done(advisor.close())


async def test_with_one_address_a_break_is_told(connect: Any, daemon: FakeDaemon) -> None:
    """With nowhere to continue, a follower gets the error that the daemon is unreachable."""
    advisor = connect(daemon.target, timeout_s=5.0)
    await done((await opened(advisor, "a")).next_lr(0, LOSSES[0]))
    watch = advisor.watch("a", follow=True)
    await _some(watch, 1)
    await asyncio.to_thread(daemon.stop)
    with pytest.raises(mlrs.UnavailableError):
        await _some(watch, 1)
    await done(advisor.close())


async def test_a_bounded_watch_ends_at_its_deadline(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon]
) -> None:
    """The deadline is of the whole, however many replicas it was read at."""
    first, second = pair
    first.own("a")
    advisor = connect(first.target + "," + second.target, timeout_s=5.0)
    await done((await opened(advisor, "a")).next_lr(0, LOSSES[0]))
    watch = advisor.watch("a", follow=True, timeout_s=0.6)
    await _some(watch, 1)
    second.own("a")
    began = asyncio.get_running_loop().time()
    with pytest.raises(mlrs.errors.DeadlineExceededError):
        await _some(watch, 1)
    assert asyncio.get_running_loop().time() - began < 1.2
    await done(advisor.close())
