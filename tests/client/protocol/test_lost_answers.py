"""Calls whose first answer was lost, made again at another replica."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mlrs
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, Records, lr_sequence
from tests.support.runs import opened


@pytest.fixture
def pair() -> Iterator[tuple[FakeDaemon, FakeDaemon]]:
    """Two replicas over the same records."""
    records = Records()
    daemons = FakeDaemon(records), FakeDaemon(records)
    yield daemons
    for daemon in daemons:
        daemon.stop()


def both(pair: tuple[FakeDaemon, FakeDaemon]) -> str:
    """Return their addresses."""
    return ",".join(daemon.target for daemon in pair)


async def test_a_run_whose_creation_was_not_heard_of_is_new(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon]
) -> None:
    """A run that the first try created is the caller's, created by this call, and takes steps."""
    pair[0].lost_answers = 1
    advisor = connect(both(pair), timeout_s=5.0)
    run = await done(advisor.run("task", horizon=9, fallback=None))
    await done(run.open())
    assert run.created
    assert run.config.horizon == 9
    assert await done(run.next_lr(0, 2.0)) == lr_sequence([2.0])[0]
    await done(advisor.close())


async def test_a_run_that_exists_exists_where_no_answer_was_lost(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon]
) -> None:
    """After a try that reached no daemon the next answer counts: what exists exists, and no more."""
    advisor = connect(f"127.0.0.1:1,{pair[0].target}", timeout_s=5.0)
    await done((await opened(advisor, "a")).next_lr(0, 1.0))
    for _ in range(2):  # an address that failed is asked last
        other = connect(f"127.0.0.1:1,{pair[0].target}", timeout_s=5.0)
        with pytest.raises(mlrs.errors.RunExistsError) as caught:
            await opened(other, "a", on_existing="error")
        assert "lost" not in str(caught.value)
        await done(other.close())
    fresh = connect(f"127.0.0.1:1,{pair[0].target}", timeout_s=5.0)
    with pytest.raises(mlrs.errors.RunNotFoundError):
        await done(fresh.delete_run("nobody"))
    for each in (advisor, fresh):
        await done(each.close())


async def test_a_run_whose_deletion_was_not_heard_of_is_deleted(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon]
) -> None:
    """A run that the first try deleted is deleted, and no error; the next call finds none."""
    advisor = connect(both(pair), timeout_s=5.0)
    await opened(advisor, "b")
    for daemon in pair:
        daemon.lost_answers = 1
    await done(advisor.delete_run("b"))
    assert not pair[0].runs
    with pytest.raises(mlrs.errors.RunNotFoundError):
        await done(advisor.delete_run("b"))
    await done(advisor.close())
