"""Rescue: what advice asks for, what a call says that it did, and how both survive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs import Schedule
from mlrs.errors import InvalidArgumentError, StaleStepError
from mlrs.ledger.fallback import fallback_of
from mlrs.types import RunConfig, Signals
from tests.client.conftest import done, until
from tests.client.fake_daemon import FakeDaemon
from tests.support.runs import opened


def recorded(daemon: FakeDaemon, run_id: str = "a") -> list[int]:
    """Return the steps before which a state was restored, as the daemon has them."""
    return [step for step, extras in daemon.runs[run_id].extras.items() if extras.restored]


async def items(iterator: Any) -> list[Any]:
    """Return what an iterator of either flavour gives."""
    if hasattr(iterator, "__aiter__"):
        return [item async for item in iterator]
    return list(iterator)


async def test_advice_asks_and_an_observation_answers(either: Any, daemon: FakeDaemon) -> None:
    """The flag is in the advice of its step only, and what was restored travels with the next observation."""
    run = await opened(either, "a", rescue=True)
    asked = []
    for step, loss in enumerate((1.0, math.nan, 1.0, math.inf, 1.0)):
        pending = run.observe(step, loss, restored=bool(asked and asked[-1]))
        asked.append((await done(pending.advice())).restore)
    assert asked == [False, True, False, True, False]
    assert recorded(daemon) == [2, 4]
    chunks = await items(either.watch("a"))
    assert [step for chunk in chunks for step in chunk.restores] == [1, 3]
    assert [step for chunk in chunks for step in chunk.restored] == [2, 4]


async def test_every_way_to_observe_takes_it(either: Any, daemon: FakeDaemon) -> None:
    """Blocking and lagged calls say that a state was restored, also beside signals."""
    run = await opened(either, "a", rescue=True)
    await done(run.next_lr(0, 1.0, restored=True))
    await done(run.next_lr(1, 1.0, restored=True, signals=Signals(grad_norm2=1.0)))
    await done(run.next_lr(2, 1.0, restored=True, lagged=True))
    await done(run.next_lr(3, 1.0, lagged=True))
    await until(lambda: len(daemon.runs["a"].losses) == 4)
    assert recorded(daemon) == [0, 1, 2]


async def test_runs_without_rescue_are_asked_nothing(either: Any, daemon: FakeDaemon) -> None:
    """Without the option, or with False, no advice has the flag."""
    for name, option in (("a", {}), ("b", {"rescue": False}), ("c", {"rescue": True})):
        run = await opened(either, name, **option)
        assert (await done(run.observe(0, math.nan).advice())).restore is bool(option.get("rescue"))
        assert run.config.rescue is (True if name == "c" else None)
    assert [record.config.rescue for record in daemon.runs.values()] == [False, False, True]


@pytest.mark.parametrize(
    ("option", "value"), [("rescue", 1), ("rescue", "yes"), ("lr_offset", 20.5), ("lr_offset", math.nan)]
)
async def test_wrong_options_are_named(either: Any, option: str, value: Any) -> None:
    """A wrong value is an error that names the option."""
    with pytest.raises(InvalidArgumentError) as caught:
        await opened(either, "a", **{option: value})
    assert caught.value.field == option


async def test_what_was_restored_must_be_true_or_false(either: Any) -> None:
    """Another value is an error that names the argument, and sends nothing."""
    run = await opened(either, "a")
    with pytest.raises(InvalidArgumentError) as caught:
        run.observe(0, 1.0, restored=1)
    assert caught.value.field == "restored"
    assert (await done(run.observe(0, 1.0).advice())).step == 0


async def test_a_step_is_repeated_with_what_was_restored(either: Any, daemon: FakeDaemon) -> None:
    """A step that is observed again says the same, or nothing; its advice asks again."""
    run = await opened(either, "a", fallback=None, rescue=True)
    first = await done(run.observe(0, math.nan, restored=True).advice())
    for restored in (True, False):
        again = await done(run.observe(0, math.nan, restored=restored).advice())
        assert (again.learning_rate, again.restore) == (first.learning_rate, True)
    await done(run.next_lr(1, 1.0))
    with pytest.raises(StaleStepError, match="step 1 was observed with no restored state"):
        await done(run.next_lr(1, 1.0, restored=True))
    assert recorded(daemon) == [0]


@pytest.mark.parametrize("ends", ["cut", "restart"])
async def test_it_is_sent_again_after_a_lost_connection(either: Any, daemon: FakeDaemon, ends: str) -> None:
    """What the daemon lost is sent again, and asked again."""
    run = await opened(either, "a", fallback=None, rescue=True)
    for step, loss in enumerate((1.0, math.nan, 1.0)):
        await done(run.next_lr(step, loss, restored=step == 2))
    getattr(daemon, ends)()
    assert (await done(run.observe(3, math.inf).advice())).restore
    assert recorded(daemon) == [2]


async def test_lagged_loops_learn_of_it_once(either: Any, daemon: FakeDaemon) -> None:
    """An adapter that never waits is told once, in the step after the advice arrived."""
    run = await opened(either, "a", rescue=True)
    asked = []
    for step, loss in enumerate((1.0, math.nan, 1.0, 1.0)):
        pending = run.observe(step, loss, lagged=True)
        asked.append(run.newest_restore(step))
        await done(pending.advice())
    assert asked == [False, False, True, False]
    assert len(daemon.runs["a"].losses) == 4


async def test_a_training_that_ends_without_its_daemon_keeps_it(
    connect: Any, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The file of what a daemon lacks says where a state was restored, and a push sends it."""
    folder = tmp_path / "unsent"
    advisor = connect(daemon.target, timeout_s=0.2, unsent_dir=folder)
    run = await opened(advisor, "a", timeout_s=10.0, rescue=True)
    await done(run.next_lr(0, 2.0))
    daemon.stop()
    for step in range(1, 5):
        await done(run.next_lr(step, 1.0, restored=step == 3))
    assert await done(run.finish()) is None
    await done(advisor.close())
    (path,) = folder.iterdir()
    daemon.start()
    other = connect(daemon.target, timeout_s=10.0)
    await done(other.push(path))
    await done(other.close())
    assert recorded(daemon) == [3]
    assert daemon.runs["a"].config.rescue


async def test_an_offset_is_sent(either: Any, daemon: FakeDaemon) -> None:
    """The daemon gets the offset, and reports it."""
    run = await opened(either, "a", lr_offset=-2.0)
    assert run.config.lr_offset == -2.0
    assert daemon.runs["a"].config.lr_offset == -2.0


def test_an_offset_moves_what_stands_in_for_a_daemon() -> None:
    """A schedule as the fallback, and what a run begins with without a daemon, are moved by the offset."""
    config = RunConfig(lr_offset=-2.0, min_lr=0.01)
    fallback = fallback_of(Schedule("constant", base_lr=0.4), [config])
    assert fallback is not None
    assert fallback.lr(3, None) == 0.1
    low = fallback_of(Schedule("constant", base_lr=0.004), [config])
    assert low is not None
    assert low.lr(3, None) == 0.01
    with mlrs.connect("localhost:1", timeout_s=0.05) as advisor:
        run = advisor.run("t", initial_lr=0.4, lr_offset=-2.0, on_unavailable="fallback", timeout_s=0.05)
        assert run.next_lr(0, 1.0) == 0.1
