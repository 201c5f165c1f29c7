"""What was answered and is not stored yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.arrays import RunGroup
from mlrs_server.live.flush_batch import FlushBatch
from tests.server.support import LOSSES, Harness, harness, raises, replayed


async def stored_steps(here: Harness, run_id: str) -> int:
    """Return how many steps of a run the store has, past the journal."""
    found = await here.stored.in_store(lambda _: here.store._store.get([run_id]).get(run_id))
    assert found is not None
    return found.snapshot.next_step


def durable(here: Harness) -> list[int]:
    """Return the durable steps of the first three rows of the first group."""
    return here.live.groups[0].records["durable_step"][:3].tolist()


async def test_a_step_is_durable_once_it_is_stored(tmp_path: Path, model_file: Path) -> None:
    """The durable step stands while the store writes, and moves when it has."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        here.store.unblocked.clear()
        flush = asyncio.create_task(here.live.journal.flush())
        while "append" not in here.store.calls:  # noqa: ASYNC110  # until the store's thread has it
            await asyncio.sleep(0.001)
        answer = await here.ask(opened.handle, 3, LOSSES[3])
        assert answer.durable_steps.tolist() == [-1]
        assert not flush.done()
        here.store.unblocked.set()
        await flush
        assert await stored_steps(here, "a") == 3
        assert (await here.ask(opened.handle, 4, LOSSES[4])).durable_steps.tolist() == [2]


async def test_a_flush_holds_everything_before_it(tmp_path: Path, model_file: Path) -> None:
    """A flush that waits for another stores what was answered while it waited."""
    async with harness(tmp_path / "d", model_file) as here:
        runs = [await here.open(name) for name in "abc"]
        await here.follow(runs[0].handle, LOSSES[:2])
        here.store.unblocked.clear()
        first = asyncio.create_task(here.live.journal.flush())
        await asyncio.sleep(0)
        for run in runs[1:]:
            await here.follow(run.handle, LOSSES[:5])
        second = asyncio.create_task(here.live.journal.flush())
        here.store.unblocked.set()
        await asyncio.gather(first, second)
        assert [await stored_steps(here, name) for name in "abc"] == [2, 5, 5]
        assert durable(here) == [1, 4, 4]


async def test_answers_are_stored_within_the_interval(tmp_path: Path, model_file: Path) -> None:
    """Nobody need ask: the journal flushes itself."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        async with asyncio.timeout(10):
            while durable(here)[0] < 2:  # noqa: ASYNC110  # the answer to come is what a client sees too
                await asyncio.sleep(0.005)
        assert await stored_steps(here, "a") == 3


async def test_advice_goes_on_while_the_store_fails(tmp_path: Path, model_file: Path) -> None:
    """Durable steps stand still, nothing is lost, and the store catches up when it is back."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01) as here:
        opened = await here.open("a")
        here.store.failing = {"append"}
        lrs = []
        for step in range(60):
            answer = await here.ask(opened.handle, step, LOSSES[step])
            assert answer.durable_steps.tolist() == [-1]
            lrs.append(answer.lrs[0])
            await asyncio.sleep(0.001)
        assert here.store.calls.count("append") > 1
        with raises(Reason.STORE, match="disk is full"):
            await here.live.journal.flush()
        here.store.failing.clear()
        async with asyncio.timeout(10):
            while durable(here)[0] < 59:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.005)
        record = await here.history("a")
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:60])
        assert record.lrs.tobytes() == np.array(lrs).tobytes() == alone.tobytes()
        assert record.losses.tobytes() == LOSSES[:60].tobytes()


async def test_a_caller_that_goes_away_stops_no_flush(tmp_path: Path, model_file: Path) -> None:
    """A cancelled flush still ends: what it wrote is not written again, and the next one works."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        here.store.unblocked.clear()
        reads = [asyncio.create_task(here.records.get("a")) for _ in range(3)]
        while "append" not in here.store.calls:  # noqa: ASYNC110  # until the store's thread has it
            await asyncio.sleep(0.001)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        here.store.unblocked.set()
        await here.follow(opened.handle, LOSSES[3:6], start=3)
        await here.live.journal.flush()
        assert durable(here)[0] == 5
        assert (await here.history("a")).losses.tobytes() == LOSSES[:6].tobytes()


async def test_a_closed_run_becomes_durable_too(tmp_path: Path, model_file: Path) -> None:
    """A flush that was under way when a run closed for a change still moves its durable step."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        here.store.unblocked.clear()
        flush = asyncio.create_task(here.live.journal.flush())
        while "append" not in here.store.calls:  # noqa: ASYNC110  # until the store's thread has it
            await asyncio.sleep(0.001)
        with here.live.closed("a"):
            here.store.unblocked.set()
            await flush
        assert durable(here)[0] == 4
        assert (await here.records.get("a")).durable_step == 4


async def test_a_defect_in_a_flush_is_tried_again(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that no store should raise costs no record either."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01) as here:
        opened = await here.open("a")
        calls = []

        def broken(_updates: object) -> None:
            calls.append(1)
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(here.store._store, "append", broken)
            await here.follow(opened.handle, LOSSES[:3])
            async with asyncio.timeout(10):
                while len(calls) < 2:  # noqa: ASYNC110  # until it was tried again
                    await asyncio.sleep(0.005)
        async with asyncio.timeout(10):
            while durable(here)[0] < 2:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.005)


async def test_what_is_stored_of_a_run_is_of_one_moment(tmp_path: Path, model_file: Path) -> None:
    """The stored state is that after the last stored step, whatever was answered since."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, [*LOSSES[:4], *[float("nan")] * 10])
        await here.live.journal.flush()
        await here.follow(opened.handle, [1.0, 2.0], start=14)
        found = await here.stored.in_store(lambda _: here.store._store.get(["a"]).get("a"))
        assert found is not None
        assert found.snapshot.next_step == 14
        assert found.snapshot.status == RunStatus.DIVERGED


async def test_the_journal_is_bounded(tmp_path: Path, model_file: Path) -> None:
    """When the store fails for long, observations are refused with the limit; then all goes on."""
    async with harness(tmp_path / "d", model_file, flush_interval_s=0.01, max_unflushed=20) as here:
        opened = await here.open("a")
        here.store.failing = {"append"}
        lrs = await here.follow(opened.handle, LOSSES[:20])
        for step in (20, 19):
            with raises(Reason.QUEUE_FULL, field="max_unflushed", match="20 answers wait"):
                await here.ask(opened.handle, step, LOSSES[step])
        here.store.failing.clear()
        await here.live.journal.flush()
        rest = await here.follow(opened.handle, LOSSES[20:30], start=20)
        alone = replayed(here.catalog.find("").policy, RunConfig(), LOSSES[:30])
        assert np.concatenate([lrs, rest]).tobytes() == alone.tobytes()
        assert (await here.history("a")).lrs.tobytes() == alone.tobytes()


async def test_a_flush_that_cannot_begin_gives_nothing_up(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there is no memory to prepare a flush, every answer is kept, and a later flush stores it."""
    async with harness(tmp_path / "d", model_file) as here:
        one, two = (
            await here.open("a"),
            await here.open("b", RunConfig(schedule=ScheduleSpec(ScheduleKind.CONSTANT))),
        )
        await here.follow(one.handle, LOSSES[:4])
        await here.follow(two.handle, LOSSES[:3])
        prepare, calls = FlushBatch.of, []

        def fail(group: RunGroup) -> FlushBatch:
            calls.append(group)
            if len(calls) == 2:
                raise MemoryError
            return prepare(group)

        with monkeypatch.context() as patch:
            patch.setattr(FlushBatch, "of", fail)
            with pytest.raises(MemoryError):
                await here.live.journal.flush()
        await here.follow(one.handle, LOSSES[4:6], start=4)
        await here.live.journal.flush()
        assert here.live.journal._unflushed == 0
        assert (await here.history("a")).losses.tobytes() == LOSSES[:6].tobytes()
        assert (await here.history("b")).losses.tobytes() == LOSSES[:3].tobytes()


async def test_a_commit_of_unknown_outcome_is_tried_again(tmp_path: Path, model_file: Path) -> None:
    """When the store fails after it has committed, the answers come once more, and stand there once."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("run")
        append, here.store.append = here.store.append, None

        def append_and_fail(updates: object) -> None:
            append(updates)
            here.store.append = append
            raise AdvisorError(Reason.STORE, "the connection was lost")

        here.store.append = append_and_fail
        lrs = await here.follow(opened.handle, LOSSES[:4])
        with raises(Reason.STORE):
            await here.live.journal.flush()
        lrs = [*lrs, *await here.follow(opened.handle, LOSSES[4:6], start=4)]
        await here.live.journal.flush()
        record = await here.history("run")
        assert record.lrs.tolist() == lrs
        assert (await here.records.get("run")).durable_step == 5
