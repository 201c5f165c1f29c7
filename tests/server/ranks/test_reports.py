"""Runs whose ranks all report: who is answered when, and with what."""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RankReduction, RanksConfig, RunConfig
from mlrs_server.domain.extras import Extras, first_sent, none_sent
from mlrs_server.domain.ledger import AdviceReason
from mlrs_server.domain.rank_reduction import Report, reduced
from mlrs_server.errors import Reason
from mlrs_server.live.answers import Answer
from mlrs_server.storage import Observations, Store
from tests.server.sensing import SENSING, extras_at, install
from tests.server.storage.stored import same
from tests.server.support import LOSSES, Harness, harness, observed, raises, replayed, until

ALL = RunConfig(horizon=50, num_classes=10, ranks=RanksConfig())
PLAIN = RunConfig(horizon=50, num_classes=10)


def hurried(quorum: float = 0.5) -> RunConfig:
    """Return a config whose stragglers are waited for a moment only."""
    return RunConfig(horizon=50, num_classes=10, ranks=RanksConfig(straggler_timeout_s=0.02, quorum=quorum))


def loss_of(step: int, rank: int) -> float:
    """Return the loss of a rank at a step."""
    return float(LOSSES[step] * (1 + 0.1 * rank))


def mean_of(step: int, ranks: Sequence[int]) -> float:
    """Return what the daemon makes of some ranks' losses."""
    return reduced({rank: Report(loss_of(step, rank), 1.0) for rank in ranks}, RankReduction.MEAN)


def undisturbed(here: Harness, world_size: int, steps: int) -> list[str]:
    """Return the learning rates of a run of one rank that observes the means."""
    losses = [mean_of(step, range(world_size)) for step in range(steps)]
    return [lr.hex() for lr in replayed(here.catalog.find("").policy, PLAIN, losses).tolist()]


def rates_of(answer: Answer) -> list[str]:
    """Return the learning rates of an answer without errors, as bits."""
    assert not answer.errors, answer.errors
    return [lr.hex() for lr in answer.entries.lrs.tolist()]


def error_of(answer: Answer) -> Reason:
    """Return the reason why the only entry was refused."""
    assert math.isnan(answer.entries.lrs[0])
    return answer.errors[0].reason


@asynccontextmanager
async def waiting(
    here: Harness, handle: int, *entries: tuple[int, int, float], extras: Extras | None = None
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Have a message sent that is waiting for other ranks."""
    task = asyncio.create_task(here.report(handle, entries, (), extras))
    before = here.rank_reducer.pending_barriers
    await until(lambda: here.rank_reducer.pending_barriers > before or task.done())
    assert not task.done()
    yield task


@pytest.mark.parametrize("world_size", [1, 2, 5])
async def test_all_ranks_get_the_advice_for_their_mean(
    tmp_path: Path, model_file: Path, world_size: int
) -> None:
    """Every rank gets, bit for bit, what a run of one rank gets for the mean of the losses."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=world_size)).handle
        lrs = []
        for step in range(12):
            ranks = np.random.default_rng(step).permutation(world_size).tolist()
            answers = await asyncio.gather(
                *(here.report(handle, [(step, rank, loss_of(step, rank))]) for rank in ranks)
            )
            assert len({rates_of(answer)[0] for answer in answers}) == 1
            assert [answer.ranks_reported for answer in answers] == [{0: world_size}] * world_size
            assert {int(answer.entries.reasons[0]) for answer in answers} == {AdviceReason.FRESH}
            lrs.append(rates_of(answers[0])[0])
        assert lrs == undisturbed(here, world_size, 12)
        assert here.rank_reducer.pending_barriers == 0


async def _batched(tmp_path: Path, model_file: Path, seed: int, world_size: int, streams: int) -> None:
    order = random.Random(seed)  # noqa: S311  # an order, and no secret
    async with harness(Path(tempfile.mkdtemp(dir=tmp_path)), model_file) as here:
        handle = (await here.open("run", ALL, world_size=world_size)).handle
        home = [order.randrange(streams) for _ in range(world_size)]

        async def stream(number: int) -> list[tuple[int, str]]:
            """Send the ranks of a stream, some steps in a message."""
            got: list[tuple[int, str]] = []
            step, ranks = 0, [rank for rank in range(world_size) if home[rank] == number]
            while ranks and step < 12:
                steps = range(step, min(step + order.randint(1, 4), 12))
                await asyncio.sleep(0)
                entries = [(s, r, loss_of(s, r)) for s in steps for r in order.sample(ranks, len(ranks))]
                got += zip(
                    [s for s, _, _ in entries], rates_of(await here.report(handle, entries)), strict=True
                )
                step = steps[-1] + 1
            return got

        got = await asyncio.gather(*map(stream, range(streams)))
        expected = undisturbed(here, world_size, 12)
        assert all(lr == expected[step] for some in got for step, lr in some)
        assert sum(map(len, got)) == 12 * world_size


def test_batching_and_order_change_no_bit(tmp_path: Path, model_file: Path) -> None:
    """However ranks share streams and messages, one step or several at once, the advice is the same."""

    @settings(max_examples=15)
    @given(seed=st.integers(0, 2**32), world_size=st.integers(1, 7), streams=st.integers(1, 4))
    def check(seed: int, world_size: int, streams: int) -> None:
        asyncio.run(_batched(tmp_path, model_file, seed, world_size, streams))

    check()


async def test_two_runs_in_one_message_do_not_wait_for_each_other(tmp_path: Path, model_file: Path) -> None:
    """Of two streams that share two runs, each may send first what the other sends last."""
    async with harness(tmp_path, model_file) as here:
        a, b = [(await here.open(name, ALL, world_size=2)).handle for name in "ab"]

        async def one_by_one() -> None:
            for handle, step in ((a, 0), (a, 1), (b, 0)):
                await here.report(handle, [(step, 0, 1.0)])

        entries = observed([a, a, b], [0, 1, 0], [1.0, 1.0, 1.0])
        entries.table["rank"] = 1
        answer = await here.engine.answer(entries)
        async with asyncio.timeout(20):
            await asyncio.gather(one_by_one(), here.rank_reducer.reduce(answer, (), 0))
        assert not answer.errors


async def test_a_rank_ahead_is_refused(tmp_path: Path, model_file: Path) -> None:
    """Only the next step is gathered: a rank beyond it is told which is expected."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        answer = await here.report(handle, [(1, 0, 1.0)])
        assert error_of(answer) == Reason.STEP_AHEAD
        assert answer.errors[0].next_step == 0
        assert here.rank_reducer.pending_barriers == 0


async def test_a_report_again_counts_once(tmp_path: Path, model_file: Path) -> None:
    """The same report again waits along with the first; another one of that step is refused."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 1.0)) as first:
            again = asyncio.create_task(here.report(handle, [(0, 0, 1.0)]))
            assert error_of(await here.report(handle, [(0, 0, 1.5)])) == Reason.STALE_STEP
            await here.report(handle, [(0, 1, 3.0)])
            assert rates_of(await first) == rates_of(await again)
        assert (await here.history("run")).losses.tolist() == [2.0]


async def test_an_answered_step_is_answered_alike_for_any_loss(tmp_path: Path, model_file: Path) -> None:
    """A rank that comes late, or back, gets what was recorded, whatever its own loss is, long ago or now."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        for step in range(5):
            await here.report(handle, [(step, rank, loss_of(step, rank)) for rank in range(2)])
        back = await here.report(handle, [(step, 1, 99.0) for step in range(5)])
        assert rates_of(back) == undisturbed(here, 2, 5)
        assert set(back.entries.reasons.tolist()) == {AdviceReason.REPLAYED}
        assert (await here.history("run")).losses.tolist() == [mean_of(step, range(2)) for step in range(5)]


async def test_a_straggler_is_not_waited_for(tmp_path: Path, model_file: Path) -> None:
    """After the timeout a quorum is enough; what they get is stored; the late rank gets the same."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", hurried(), world_size=4)).handle
        answer = await here.report(handle, [(0, rank, loss_of(0, rank)) for rank in (0, 2)])
        assert answer.ranks_reported == {0: 2, 1: 2}
        assert answer.entries.durable_steps.tolist() == [0, 0]
        late = await here.report(handle, [(0, 3, 99.0)])
        assert rates_of(late)[0] == rates_of(answer)[0]
        assert (await here.history("run")).losses.tolist() == [mean_of(0, (0, 2))]


async def test_a_quorum_is_waited_for(tmp_path: Path, model_file: Path) -> None:
    """Once the timeout has passed without a quorum, the rank that completes it ends the wait."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", hurried(0.75), world_size=4)).handle
        async with waiting(here, handle, (0, 1, 1.0), (0, 2, 2.0)) as first:
            await asyncio.sleep(0.1)
            assert not first.done()
            last = await here.report(handle, [(0, 0, 3.0)])
            assert last.ranks_reported == {0: 3}
            assert (await first).ranks_reported == {0: 3, 1: 3}


async def test_an_answer_without_all_ranks_is_given_though_the_store_fails(
    tmp_path: Path, model_file: Path
) -> None:
    """A store that fails does not keep ranks waiting for a promise."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", hurried(), world_size=2)).handle
        here.store.failing.add("append")
        answer = await here.report(handle, [(0, 0, 1.0)])
        assert len(rates_of(answer)) == 1
        assert answer.entries.durable_steps.tolist() == [-1]


async def test_one_nan_holds_every_rank(tmp_path: Path, model_file: Path) -> None:
    """Under the mean a rank's NaN makes the loss NaN, as it does to the gradients: all are held."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        before = rates_of(await here.report(handle, [(0, 0, 1.0), (0, 1, 1.0)]))
        held = await here.report(handle, [(1, 0, 1.0), (1, 1, math.nan)])
        assert rates_of(held) == before
        assert held.entries.reasons.tolist() == [AdviceReason.HELD] * 2


async def test_a_median_outvotes_a_nan(tmp_path: Path, model_file: Path) -> None:
    """Under the median a minority of NaNs is passed over."""
    async with harness(tmp_path, model_file) as here:
        config = RunConfig(num_classes=10, ranks=RanksConfig(reduction=RankReduction.MEDIAN))
        handle = (await here.open("run", config, world_size=3)).handle
        await here.report(handle, [(0, 0, math.nan), (0, 1, 2.0), (0, 2, 1.0)])
        assert (await here.history("run")).losses.tolist() == [2.0]


async def test_samples_weigh(tmp_path: Path, model_file: Path) -> None:
    """A mean of more samples counts for more; a count that is none refuses its entry alone."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        bad = await here.report(handle, [(0, 0, 1.0)], samples=[0.0])
        assert (error_of(bad), bad.errors[0].field) == (Reason.INVALID_FIELD, "sample_counts")
        await here.report(handle, [(0, 0, 1.0), (0, 1, 5.0)], samples=[3.0, 1.0])
        assert (await here.history("run")).losses.tolist() == [2.0]


async def test_a_rank_beyond_the_world_is_refused(tmp_path: Path, model_file: Path) -> None:
    """A rank at or above the world size is refused, by the field's name."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        answer = await here.report(handle, [(0, 2, 1.0)])
        assert (error_of(answer), answer.errors[0].field) == (Reason.INVALID_FIELD, "ranks")
        assert here.rank_reducer.pending_barriers == 0


async def test_only_rank_0_moves_other_runs(tmp_path: Path, model_file: Path) -> None:
    """Ranks of a run without ranks cannot send observations."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("plain")).handle
        answer = await here.report(handle, [(0, 1, 1.0)])
        assert (error_of(answer), answer.errors[0].field) == (Reason.INVALID_FIELD, "ranks")
        assert rates_of(await here.report(handle, [(0, 0, 1.0)]))


async def test_fewer_ranks_complete_a_step(tmp_path: Path, model_file: Path) -> None:
    """When the world shrinks, those who are left may be all; those beyond it are told to go."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=4)).handle
        async with (
            waiting(here, handle, (0, 0, 1.0), (0, 1, 3.0)) as left,
            asyncio.TaskGroup() as group,
        ):
            gone = group.create_task(here.report(handle, [(0, 3, 9.0)]))
            await asyncio.sleep(0.02)
            opened = await here.open("run", world_size=2)
            assert (opened.handle, opened.view.world_size) == (handle, 2)
            assert (await left).ranks_reported == {0: 2, 1: 2}
        assert error_of(gone.result()) == Reason.INVALID_FIELD
        assert (await here.history("run")).losses.tolist() == [2.0]


async def test_the_world_size_is_kept(tmp_path: Path, model_file: Path) -> None:
    """It is 1 at first, changes between steps, and is there after a restart, with the steps so far."""
    async with harness(tmp_path, model_file) as here:
        opened = await here.open("run", ALL)
        assert opened.view.world_size == 1
        await here.report(opened.handle, [(0, 0, 1.0)])
        await here.open("run", world_size=3)
        await here.report(opened.handle, [(1, 0, 1.0), (1, 1, 2.0), (1, 2, 3.0)])
        await here.open("run")
        assert (await here.records.get("run")).world_size == 3
    async with harness(tmp_path, model_file) as here:
        opened = await here.open("run", mode="resume")
        assert (opened.view.world_size, opened.view.snapshot.next_step) == (3, 2)
        answer = await here.report(opened.handle, [(2, 0, 1.0), (2, 1, 2.0), (2, 2, 3.0)])
        assert answer.ranks_reported == {0: 3, 1: 3, 2: 3}


async def test_ranks_may_come_to_a_config_before_the_first_step(tmp_path: Path, model_file: Path) -> None:
    """A run that lacks ranks takes them, with their defaults, until it has observed something."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run")).handle
        opened = await here.open("run", RunConfig(ranks=RanksConfig()), world_size=2)
        assert (opened.handle, opened.view.world_size) == (handle, 2)
        answer = await here.report(handle, [(0, 0, 1.0), (0, 1, 2.0)])
        assert answer.ranks_reported == {0: 2, 1: 2}
    async with harness(tmp_path, model_file) as here:
        assert (await here.records.get("run")).config.ranks == RanksConfig().resolved()


@pytest.mark.parametrize("size", [0, 65_537])
async def test_a_world_size_has_bounds(tmp_path: Path, model_file: Path, size: int) -> None:
    """A world of none, or above the limit of the contract, is refused by name."""
    async with harness(tmp_path, model_file) as here:
        with raises(Reason.INVALID_FIELD, field="world_size"):
            await here.open("run", ALL, world_size=size)


async def test_a_world_size_needs_ranks(tmp_path: Path, model_file: Path) -> None:
    """A run without `config.ranks` has no world size, neither at first nor later."""
    async with harness(tmp_path, model_file) as here:
        for _ in range(2):
            with raises(Reason.INVALID_FIELD, field="world_size", match="config.ranks"):
                await here.open("run", world_size=2)
            await here.open("run")


async def test_a_report_stays_when_its_stream_is_gone(tmp_path: Path, model_file: Path) -> None:
    """A rank whose stream breaks has reported all the same: the others need not wait for it again."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 1.0)) as gone:
            gone.cancel()
            await asyncio.wait([gone])
        assert rates_of(await here.report(handle, [(0, 1, 3.0)]))
        assert (await here.history("run")).losses.tolist() == [2.0]
        assert here.rank_reducer.pending_barriers == 0


async def test_a_restart_drops_what_the_dead_reported(tmp_path: Path, model_file: Path) -> None:
    """A job that goes on from a checkpoint may report other losses; those that wait by now stay."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 7.0)) as dead:
            dead.cancel()
            await asyncio.wait([dead])
        assert (await here.open("run", resume_from=0)).handle == handle
        async with waiting(here, handle, (0, 0, 1.0)) as alive:
            assert (await here.open("run", resume_from=0)).handle == handle
            await here.report(handle, [(0, 1, 3.0)])
            await alive
        assert (await here.history("run")).losses.tolist() == [2.0]


async def test_closing_a_run_releases_who_waits(tmp_path: Path, model_file: Path) -> None:
    """A run that is deleted, rewound, finished, idle or another's lets its ranks go, with the reason."""
    async with harness(tmp_path, model_file) as here:

        async def finish() -> None:
            await here.finish("run")

        async def delete() -> None:
            await here.ending.delete("run")

        async def rewind() -> None:
            await here.open("run", resume_from=0)

        async def idle() -> None:
            await here.live.journal.flush()
            here.live.drop_rows(here.live.groups[0], [here.row(handle)])

        async def lose() -> None:
            shard = int(here.live.groups[0].records["shard"][here.row(handle)])
            here.live.forget_shards({shard})
            await here.live.drop_shards({shard})

        for close, reason in (
            (rewind, Reason.STALE_HANDLE),
            (idle, Reason.STALE_HANDLE),
            (lose, Reason.STALE_HANDLE),
            (finish, Reason.RUN_FINISHED),
            (delete, Reason.STALE_HANDLE),
        ):
            opened = await here.open("run", ALL, world_size=2, resume_from=0 if close is delete else None)
            handle, step = opened.handle, opened.view.snapshot.next_step
            await here.report(handle, [(step, 0, 1.0), (step, 1, 1.0)])
            async with waiting(here, handle, (step + 1, 0, 1.0)) as task:
                await close()
                assert error_of(await task) == reason, close
            assert here.rank_reducer.pending_barriers == 0


async def test_a_drain_releases_who_waits(tmp_path: Path, model_file: Path) -> None:
    """A daemon that drains tells ranks that wait, and those who come after."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 1.0)) as task:
            here.rank_reducer.drain()
            assert error_of(await task) == Reason.DRAINING
        assert error_of(await here.report(handle, [(0, 1, 1.0)])) == Reason.DRAINING
        assert here.rank_reducer.pending_barriers == 0


async def test_a_full_queue_fails_all_who_wait(tmp_path: Path, model_file: Path) -> None:
    """Where no more answers may wait to be stored, the calls of all ranks fail, as those of other runs do."""
    async with harness(tmp_path, model_file, max_unflushed=1) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 1.0)) as task:
            other = (await here.open("other")).handle
            await here.ask(other, 0, 1.0)
            with raises(Reason.QUEUE_FULL):
                await here.report(handle, [(0, 1, 1.0)])
            task.cancel()
            await asyncio.wait([task])
        await here.live.journal.flush()
        assert rates_of(await here.report(handle, [(0, 1, 1.0)]))


async def test_advise_says_no_rank(tmp_path: Path, model_file: Path) -> None:
    """The call without a rank serves a run of one rank, and refuses one of several."""
    async with harness(tmp_path, model_file) as here:
        for size, refused in ((1, False), (2, True)):
            handle = (await here.open(f"run-{size}", ALL, world_size=size)).handle
            answer = here.engine.answer_now(observed(handle, 0, 1.0))
            if refused:
                with raises(Reason.INVALID_FIELD, field="run_id", match="StreamAdvice"):
                    await here.rank_reducer.reduce_alone(answer, 0)
            else:
                await here.rank_reducer.reduce_alone(answer, 0)
                assert rates_of(answer)
            assert here.rank_reducer.pending_barriers == 0


async def test_a_record_of_means_replays(tmp_path: Path, model_file: Path) -> None:
    """A rewind makes a run's state of its record of means, and the next steps are what they were."""
    async with harness(tmp_path, model_file) as here:
        opened = await here.open("run", ALL, world_size=2)
        lrs = []
        for turn in range(2):
            handle = opened.handle if turn == 0 else (await here.open("run", resume_from=4)).handle
            for step in range(4 * turn, 10):
                answer = await here.report(handle, [(step, rank, loss_of(step, rank)) for rank in range(2)])
                lrs.append(rates_of(answer)[0])
        assert lrs[4:10] == lrs[10:]


async def test_the_lowest_rank_with_signals_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals and validation losses of a step are those of the lowest ranks that have them, bit for bit."""
    install(monkeypatch)
    ranked, plain = replace(SENSING, ranks=RanksConfig()), SENSING
    async with harness(tmp_path, None) as here:
        handle = (await here.open("run", ranked, world_size=3)).handle
        alone = (await here.open("alone", plain)).handle
        for step in range(15):
            own = {0: none_sent(1)[0], 1: extras_at(step), 2: extras_at(step + 1)}
            answers = await asyncio.gather(
                *(
                    here.report(handle, [(step, rank, loss_of(step, rank))], (), own[rank])
                    for rank in (2, 0, 1)
                )
            )
            expected = first_sent([own[1], own[2]])
            given = await here.ask(alone, step, mean_of(step, range(3)), expected)
            assert {float(answer.entries.lrs[0]) for answer in answers} == {float(given.lrs[0])}
        late = await here.report(handle, [(14, 2, loss_of(14, 2))], (), own[2])
        assert late.entries.reasons[0] == AdviceReason.REPLAYED
        await here.live.journal.flush()
        keys = [int(here.live.find(name).record["key"]) for name in ("run", "alone")]  # type: ignore[union-attr]
        run, one = [await here.stored.in_store(partial(read, key)) for key in keys]
        assert same(run, one)


def read(key: int, store: Store) -> Observations:
    """Return a run's record."""
    return store.read(key, 0, 99)


async def test_a_rank_reports_a_step_with_the_same_signals_only(tmp_path: Path, model_file: Path) -> None:
    """A rank that reports a step again with other signals is refused, with what differs."""
    async with harness(tmp_path, model_file) as here:
        handle = (await here.open("run", ALL, world_size=2)).handle
        async with waiting(here, handle, (0, 0, 1.0), extras=extras_at(1)) as first:
            other = await here.report(handle, [(0, 0, 1.0)], (), extras_at(2))
            assert error_of(other) == Reason.STALE_STEP
            assert "rank 0 has reported step 0 of run 'run' before, with" in str(other.errors[0])
            assert "and comes now with" in str(other.errors[0])
            again = asyncio.create_task(here.report(handle, [(0, 0, 1.0)], (), extras_at(1)))
            await here.report(handle, [(0, 1, 1.0)])
            assert rates_of(await first) == rates_of(await again)
