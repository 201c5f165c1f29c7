"""Many ranks under one schedule, over the wire: daemons that die, move and drain, and worlds that change."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import mlrs
from mlrs import aio
from mlrs_core.config import RankReduction, RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.domain.rank_reduction import Report, reduced
from tests.server.support import replayed
from tests.support.daemon import Daemon, write_random_model
from tests.support.postgres import PostgresServer, postgres_or_skip
from tests.support.runs import opened

PATIENCE_S = 60.0
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    server = postgres_or_skip()
    yield server
    server.remove()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network."""
    return write_random_model(tmp_path / "tiny.safetensors")


@pytest.fixture
def daemon(tmp_path: Path, model: Path) -> Iterator[Daemon]:
    """A daemon by itself."""
    with Daemon(tmp_path / "data", "--model", str(model)) as started:
        yield started


def loss_of(step: int, rank: int) -> float:
    """Return the loss of a rank at a step."""
    return 2.5 * 0.97**step + 0.01 * rank


def samples_of(rank: int) -> float:
    """Return the samples of a rank."""
    return float(1 + rank % 3)


def undisturbed(model: Path, sizes: Sequence[int]) -> list[str]:
    """Return the learning rates of one rank that observes the means of so many ranks, a step each."""
    losses = [
        reduced(
            {rank: Report(loss_of(step, rank), samples_of(rank)) for rank in range(size)}, RankReduction.MEAN
        )
        for step, size in enumerate(sizes)
    ]
    policy = read_model(model)[0].policy()
    return [lr.hex() for lr in replayed(policy, RunConfig(horizon=100, num_classes=10), losses).tolist()]


@asynccontextmanager
async def ranks(address: str, size: int) -> AsyncIterator[list[aio.Run]]:
    """Open a run as every one of its ranks, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        runs = []
        for rank in range(size):
            advisor = await stack.enter_async_context(aio.connect(address))
            run = await opened(
                advisor, "job", rank=rank, world_size=size, horizon=100, num_classes=10, timeout_s=PATIENCE_S
            )
            stack.callback(run.detach)
            runs.append(run)
        yield runs


async def follow(run: aio.Run, steps: range) -> list[str]:
    """Take steps as a rank; return its learning rates."""
    rank = run.rank or 0
    return [
        (await run.next_lr(step, loss_of(step, rank), samples=samples_of(rank), timeout_s=PATIENCE_S)).hex()
        for step in steps
    ]


async def all_follow(runs: Sequence[aio.Run], steps: range) -> list[str]:
    """Take steps as every rank; return their learning rates, which are the same."""
    lrs = await asyncio.gather(*(follow(run, steps) for run in runs))
    assert all(some == lrs[0] for some in lrs)
    return lrs[0]


async def test_64_ranks_are_advised_alike(daemon: Daemon, model: Path) -> None:
    """64 processes' worth of streams get one schedule: that of one rank which observes their mean."""
    async with ranks(daemon.address, 64) as runs:
        assert await all_follow(runs, range(20)) == undisturbed(model, [64] * 20)
        advice = [run.observe(20, loss_of(20, run.rank or 0)) for run in runs]
        assert {(await one.advice(timeout_s=PATIENCE_S)).ranks_reported for one in advice} == {64}


async def test_a_daemon_killed_in_a_step_changes_no_rate(daemon: Daemon, model: Path) -> None:
    """Some ranks have reported a step when the daemon is killed; they do so again, and no bit is another."""
    async with ranks(daemon.address, 4) as runs:
        lrs = await all_follow(runs, range(10))
        early = [asyncio.create_task(follow(run, range(10, 20))) for run in runs[:3]]
        await asyncio.sleep(0.05)  # some reports are there, or on their way: either must do
        daemon.kill()
        daemon.start()
        lrs += await follow(runs[3], range(10, 20))
        assert [await task for task in early] == [lrs[10:]] * 3
    assert lrs == undisturbed(model, [4] * 20)


async def test_what_a_straggler_missed_survives_a_kill(tmp_path: Path, model: Path) -> None:
    """An answer without all ranks is stored before it is given: a daemon repeats it after a kill."""
    with Daemon(tmp_path / "slow", "--model", str(model), "--flush-interval-s", "30") as daemon:
        async with aio.connect(daemon.address) as one, aio.connect(daemon.address) as other:
            settings: dict[str, Any] = {
                "world_size": 2,
                "straggler_timeout_s": 0.05,
                "num_classes": 10,
                "horizon": 100,
            }
            first = await opened(one, "job", rank=0, **settings)
            late = await opened(other, "job", rank=1, **settings)
            advice = await first.observe(0, 2.0).advice(timeout_s=PATIENCE_S)
            assert (advice.ranks_reported, advice.durable_step) == (1, 0)
            daemon.kill()
            daemon.start()
            again = await late.observe(0, 9.0).advice(timeout_s=PATIENCE_S)
            assert again.learning_rate.hex() == advice.learning_rate.hex()
            assert again.reason == mlrs.AdviceReason.REPLAYED


async def test_a_world_that_changes_size(daemon: Daemon, model: Path) -> None:
    """A job that goes on with fewer ranks, and then with more, keeps its schedule; the size is shown."""
    lrs: list[str] = []
    sizes = [4] * 5 + [2] * 5 + [7] * 5
    for start, size in ((0, 4), (5, 2), (10, 7)):
        async with ranks(daemon.address, size) as runs:
            lrs += await all_follow(runs, range(start, start + 5))
    assert lrs == undisturbed(model, sizes)
    with mlrs.connect(daemon.address) as advisor:
        assert advisor.get_run("job").world_size == 7


async def test_a_rank_that_comes_back_is_caught_up(daemon: Daemon, model: Path) -> None:
    """A rank that died after some steps reports them again with any losses, and gets what all got."""
    async with ranks(daemon.address, 2) as runs:
        lrs = await all_follow(runs, range(10))
        async with (
            aio.connect(daemon.address) as advisor,
            advisor.run("task", id="job", on_existing="resume", rank=1) as back,
        ):
            again = [(await back.next_lr(step, 99.0, timeout_s=PATIENCE_S)).hex() for step in range(10)]
            assert again == lrs
            lrs += await all_follow([runs[0], back], range(10, 15))
    assert lrs == undisturbed(model, [2] * 15)


async def test_a_deadline_is_kept_though_others_are_missing(daemon: Daemon) -> None:
    """A rank waits for the others no longer than its deadline, and its loss stays good for the next try."""
    async with ranks(daemon.address, 2) as runs:
        with pytest.raises(mlrs.errors.DeadlineExceededError):
            await runs[0].next_lr(0, 1.0, timeout_s=0.3)
        waiting = asyncio.create_task(runs[0].next_lr(0, 1.0, timeout_s=PATIENCE_S))
        assert await runs[1].next_lr(0, 2.0, timeout_s=PATIENCE_S) == await waiting


async def test_a_waiting_rank_keeps_no_other_stream(daemon: Daemon) -> None:
    """While a rank waits for the others, other runs are answered, also those of its own process."""
    async with aio.connect(daemon.address) as advisor:
        first = await opened(advisor, "job", rank=0, world_size=2)
        other = await opened(advisor, "other")
        waiting = first.observe(0, 1.0)
        for step in range(20):
            await other.next_lr(step, 1.0, timeout_s=PATIENCE_S)
        assert not waiting.done()
        second = await opened(advisor, "job", rank=1)
        assert await second.next_lr(0, 1.0, timeout_s=PATIENCE_S) == await waiting.lr(timeout_s=PATIENCE_S)


async def test_one_message_may_hold_all_ranks(daemon: Daemon) -> None:
    """A message with all ranks' losses is answered by itself; Advise, which says no rank, is refused."""
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        stub: Any = AdvisorServiceStub(channel)
        request = pb.OpenRunRequest(run_id="job", config=pb.RunConfig(ranks=pb.Ranks()), world_size=3)
        handle = (await stub.OpenRun(request)).run_handle
        call = stub.StreamAdvice()
        message = pb.StreamAdviceRequest(
            observations=pb.Observations(
                run_handles=[handle] * 3,
                steps=[0] * 3,
                losses=[1.0, 2.0, 6.0],
                rank_columns={"ranks": [2, 0, 1]},
            )
        )
        await call.write(message)
        advice = (await call.read()).advice
        assert (len(set(advice.learning_rates)), list(advice.ranks_reported)) == (1, [3] * 3)
        await call.write(
            pb.StreamAdviceRequest(
                observations=pb.Observations(
                    run_handles=[handle], steps=[1], losses=[1.0], rank_columns={"ranks": [1, 2]}
                )
            )
        )
        with pytest.raises(grpc.aio.AioRpcError, match="ranks: must be as long as steps"):
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError, match="run_id: all 3 ranks"):
            await stub.Advise(pb.AdviseRequest(run_id="job", step=1, loss=1.0))


async def test_a_drain_lets_waiting_ranks_go_on_elsewhere(daemon: Daemon, model: Path) -> None:
    """A daemon that is stopped does not wait for missing ranks; after a restart they go on."""
    async with ranks(daemon.address, 2) as runs:
        lrs = await all_follow(runs, range(5))
        waiting = asyncio.create_task(follow(runs[0], range(5, 10)))
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await asyncio.to_thread(daemon.stop)
        assert asyncio.get_running_loop().time() - began < 8
        daemon.start()
        lrs += await follow(runs[1], range(5, 10))
        assert await waiting == lrs[5:]
    assert lrs == undisturbed(model, [2] * 10)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
async def test_a_takeover_in_a_step_changes_no_rate(
    tmp_path: Path, model: Path, postgres: PostgresServer, how: signal.Signals
) -> None:
    """Ranks that came by different replicas meet at the owner; when it goes, they report to the next."""
    store = ("--store", postgres.new_database(), "--lease-s", "1", "--model", str(model))
    with Daemon(tmp_path / "one", *store) as one, Daemon(tmp_path / "two", *store) as two:
        async with AsyncExitStack() as stack:
            runs = []
            for rank, addresses in enumerate([[one.address, two.address], [two.address, one.address]] * 2):
                advisor = await stack.enter_async_context(aio.connect(addresses, timeout_s=PATIENCE_S))
                opening = advisor.run("task", id="job", rank=rank, world_size=4, horizon=100, num_classes=10)
                runs.append(await stack.enter_async_context(opening))
            lrs = await all_follow(runs, range(10))
            early = [asyncio.create_task(follow(run, range(10, 20))) for run in runs[:3]]
            await asyncio.sleep(0.1)
            owner = one if await _owns(one) else two
            owner.signal(how)
            lrs += await follow(runs[3], range(10, 20))
            assert [await task for task in early] == [lrs[10:]] * 3
    assert lrs == undisturbed(model, [4] * 20)


async def _owns(daemon: Daemon) -> bool:
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        try:
            request = pb.OpenRunRequest(run_id="job", mode=pb.OPEN_MODE_RESUME)
            stub: Any = AdvisorServiceStub(channel)
            await stub.OpenRun(request, timeout=10)
        except grpc.aio.AioRpcError:
            return False
    return True
