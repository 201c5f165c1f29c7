"""Several addresses: calls go to one that works, runs to the replica that owns them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mlrs
from mlrs_proto import v1 as pb
from tests.client.conftest import done
from tests.client.fake_daemon import FakeDaemon, Record, Records, lr_sequence
from tests.support.runs import opened

LOSSES = [2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6]
STOPPABLE = """
import sys
from tests.client.fake_daemon import FakeDaemon
daemon = FakeDaemon()
print(daemon.target, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pair() -> Iterator[tuple[FakeDaemon, FakeDaemon]]:
    """Two replicas over the same records."""
    records = Records()
    daemons = FakeDaemon(records), FakeDaemon(records)
    yield daemons
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen[str]]:
    """A daemon in a process of its own, whose address is its first line; to be stopped by SIGSTOP."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


def both(pair: tuple[FakeDaemon, FakeDaemon]) -> str:
    """Return their addresses."""
    return ",".join(daemon.target for daemon in pair)


async def test_the_first_that_works(connect: Any, daemon: FakeDaemon) -> None:
    """Calls pass over an address where no server listens, given as a list or with commas between."""
    for target in (f"127.0.0.1:1, {daemon.target}", ["127.0.0.1:1", daemon.target]):
        advisor = connect(target, timeout_s=5.0)
        run = await opened(advisor, "a", resume_from=None)
        assert (await done(advisor.get_run("a"))).id == "a"
        assert await done(run.next_lr(run.next_step, 1.0)) > 0.0
        assert "127.0.0.1:1" in repr(advisor)
        await done(advisor.close())


async def test_redirects(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """A client that knows one replica finds the owner of each run, and has a stream to each owner."""
    first, second = pair
    first.own("a")
    second.own("b")
    advisor = connect(first.target, timeout_s=5.0)
    runs = [await opened(advisor, run_id) for run_id in ("a", "b")]
    for step, loss in enumerate(LOSSES):
        lrs = [await done(run.next_lr(step, loss)) for run in runs]
        assert lrs == [lr_sequence(LOSSES)[step]] * 2
    assert (first.entries, second.entries) == (len(LOSSES), len(LOSSES))
    for run in runs:
        assert (await done(run.finish())).status == "finished"
    await done(advisor.close())


async def test_runs_move(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """A run that moves between replicas takes the client with it, whatever the old owner says to that."""
    first, second = pair
    advisor = connect(both(pair), timeout_s=5.0)
    first.own("a")
    run = await opened(advisor, "a", fallback=None)
    lrs = [await done(run.next_lr(0, LOSSES[0]))]
    moves = [(second, None), (first, first.drain), (second, second.cut), (first, second.drain)]
    for step, (owner, event) in enumerate(moves, 1):
        owner.own("a")
        if event is not None:
            event()
        lrs.append(await done(run.next_lr(step, LOSSES[step])))
    assert lrs == lr_sequence(LOSSES[:5])
    assert run.fallback_steps == 0
    await done(advisor.close())


async def test_owner_dies(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """While a dead owner has the run, others are asked again; the step continues once one has taken over."""
    first, second = pair
    first.own("a")
    advisor = connect(second.target, timeout_s=10.0)
    run = await opened(advisor, "a", fallback=None)
    lrs = [await done(run.next_lr(step, loss)) for step, loss in enumerate(LOSSES[:3])]
    await asyncio.to_thread(first.stop)
    first.runs["a"].losses[1:] = []  # what was not durable
    pending = run.observe(3, LOSSES[3])
    asyncio.get_running_loop().call_later(0.5, second.own, "a")
    lrs.append(await asyncio.to_thread(pending.lr) if connect is mlrs.connect else await pending.lr())
    assert lrs == lr_sequence(LOSSES[:4])
    await done(advisor.close())


async def test_replicas_that_stand_still(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """However often a step is waited for, the error says once that there is no advice."""
    advisor = connect(both(pair), timeout_s=0.6)
    run = await opened(advisor, "a", fallback=None, timeout_s=10.0)
    for daemon in pair:
        daemon.may_answer.clear()
        daemon.slow_s = 1.0  # opening the run again takes too long as well
    for _ in range(3):
        with pytest.raises(mlrs.errors.DeadlineExceededError) as caught:
            await done(run.next_lr(0, LOSSES[0]))
        said = str(caught.value)
        assert said.count("no advice for step 0") == said.count("run 'a'") == 1
    for daemon in pair:
        daemon.may_answer.set()
        daemon.slow_s = 0.0
    await done(advisor.close())


async def test_owner_out_of_reach(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """A run whose owner cannot be reached within the deadline is unavailable; the error says whose it is."""
    first, second = pair
    first.own("a")
    await asyncio.to_thread(first.stop)
    advisor = connect(second.target, timeout_s=2.0)
    with pytest.raises(mlrs.UnavailableError, match=f"owned by the replica at {first.target}"):
        await opened(advisor, "a")
    assert second.opened < 60
    await done(advisor.close())


async def test_owners_that_name_each_other(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """Replicas that name each other as the owner are called alternately, with pauses, until one is."""
    first, second = pair

    class Nobody:
        target = "127.0.0.1:1"

    first.records.owners["a"] = Nobody()  # type: ignore[assignment] # names an address where nobody listens
    advisor = connect(both(pair), timeout_s=5.0)
    asyncio.get_running_loop().call_later(0.3, second.own, "a")
    opening = advisor.run
    run = await asyncio.to_thread(opening, "a") if connect is mlrs.connect else await done(opening("a"))
    assert await done(run.next_lr(0, 1.0)) == lr_sequence([1.0])[0]
    await done(advisor.close())


async def test_a_sweep_is_on_one_replica(connect: Any, pair: tuple[FakeDaemon, FakeDaemon]) -> None:
    """The runs of a sweep are of one group, opened at their owner, and continue together where that is."""
    first, second = pair
    second.own("a", "b", "c")
    advisor = connect(both(pair), timeout_s=5.0)
    sweep = await done(advisor.sweep(["a", "b", "c"]))
    assert set(first.records.groups.values()) == {"a"}
    lrs = [await done(sweep.next_lrs(step, np.full(3, loss))) for step, loss in enumerate(LOSSES[:4])]
    first.own("a", "b", "c")
    lrs += [await done(sweep.next_lrs(step, np.full(3, loss))) for step, loss in enumerate(LOSSES[4:], 4)]
    assert np.array(lrs).tolist() == [[lr] * 3 for lr in lr_sequence(LOSSES)]
    await done(advisor.close())


async def test_a_stopped_replica_costs_half_a_deadline(
    connect: Any, daemon: FakeDaemon, stopped: subprocess.Popen[str]
) -> None:
    """Of two replicas one is stopped by SIGSTOP: calls, and steps under way, go on at the other in time."""
    assert stopped.stdout is not None
    target = stopped.stdout.readline().strip()
    advisor = connect([target, daemon.target], timeout_s=2.0)
    run = await opened(advisor, "a", fallback=None)
    first = await done(run.next_lr(0, LOSSES[0]))
    daemon.runs["a"] = Record("a", pb.RunConfig(model="fake@00000000"))  # as a shared store has it
    daemon.runs["a"].losses.append(LOSSES[0])
    os.kill(stopped.pid, signal.SIGSTOP)
    began = time.monotonic()
    lrs = [first, await done(run.next_lr(1, LOSSES[1]))]
    assert time.monotonic() - began < 1.9
    assert lrs == lr_sequence(LOSSES[:2])
    assert (await done(advisor.get_run("a"))).id == "a"
    fresh = connect([target, daemon.target], timeout_s=2.0)
    began = time.monotonic()
    assert (await done(fresh.get_run("a"))).id == "a"
    assert time.monotonic() - began < 1.9
    for each in (advisor, fresh):
        await done(each.close())


@pytest.mark.parametrize("how", ["next_lr", "observe"])
async def test_a_silent_replica_is_left_at_half_of_the_deadline(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon], how: str
) -> None:
    """However a step is waited for, a replica that answers nothing is left at half of the deadline."""
    silent, other = pair
    advisor = connect(both(pair), timeout_s=4.0)
    run = await done(advisor.run("a", fallback=None))
    lrs = [await done(run.next_lr(0, LOSSES[0]))]
    assert (silent.entries, other.entries) == (1, 0)
    silent.may_answer.clear()
    began = time.monotonic()
    if how == "next_lr":
        lrs.append(await done(run.next_lr(1, LOSSES[1])))
    else:
        lrs.append(await done(run.observe(1, LOSSES[1]).lr()))
    took_s = time.monotonic() - began
    silent.may_answer.set()
    assert lrs == lr_sequence(LOSSES[:2])
    assert other.entries == 1
    assert 1.9 < took_s < 2.9, took_s
    await done(advisor.close())


async def test_a_replica_that_was_joined_late_has_its_own_time(
    connect: Any, pair: tuple[FakeDaemon, FakeDaemon]
) -> None:
    """A stream that began while a step was waited for has as much time for its answer as an earlier one."""
    first, second = pair
    advisor = connect(both(pair), timeout_s=4.0)
    run = await done(advisor.run("a", fallback=None))
    await done(run.next_lr(0, LOSSES[0]))
    for daemon in pair:
        daemon.may_answer.clear()
    loop = asyncio.get_running_loop()
    loop.call_later(1.5, second.own, "a")
    loop.call_later(1.5, first.cut)
    loop.call_later(2.8, second.may_answer.set)
    began = time.monotonic()
    pending = run.observe(1, LOSSES[1])
    lr = await asyncio.to_thread(pending.lr) if connect is mlrs.connect else await pending.lr()
    assert time.monotonic() - began > 2.7
    assert lr == lr_sequence(LOSSES[:2])[1]
    assert second.opened == 1
    first.may_answer.set()
    await done(advisor.close())


@pytest.mark.parametrize("target", ["", ",", [], ["a"], "a:1,b", 5, b"a:1"])
def test_bad_addresses(target: Any) -> None:
    """An address that is none is refused, alone or among others."""
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        mlrs.connect(target)
    assert caught.value.field == "target"
