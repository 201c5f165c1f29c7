"""Reading runs, and following them, without a wire."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
import sqlalchemy as sa

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.views import RunView
from mlrs_server.storage import Observations, Store, StoredRun
from mlrs_server.storage.tables import observations, runs
from tests.server.meta.support import META, learning
from tests.server.support import LOSSES, Harness, harness, raises, until

# --------------------------------------------------------------------------------- watching


class Follower:
    """Collects what a watch yields, and lets a test wait for a number of steps."""

    def __init__(self, here: Harness, run_id: str, *, from_step: int = 0) -> None:
        self.first_steps: list[int] = []
        self.losses: list[float] = []
        self.views: list[RunView] = []
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._follow(here, run_id, from_step))

    async def _follow(self, here: Harness, run_id: str, from_step: int) -> None:
        async for view, first, part in here.records.watch(run_id, from_step, follow=True):
            async with self._grown:
                self._take(view, first, part)
                self._grown.notify_all()

    def _take(self, view: RunView, first: int, part: Observations) -> None:
        self.views.append(view)
        self.first_steps.append(first)
        self.losses += part.losses.tolist()

    async def has(self, messages: int, steps: int) -> None:
        """Wait until so many messages and steps have come."""
        async with asyncio.timeout(10), self._grown:
            await self._grown.wait_for(lambda: len(self.views) >= messages and len(self.losses) >= steps)


async def test_watching_reads_history_then_follows(tmp_path: Path, model_file: Path) -> None:
    """A follower gets what was, then what comes as it is stored, and ends when the run is finished."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        followers = [Follower(here, "a", from_step=2) for _ in range(5)]
        for follower in followers:
            await follower.has(2, 3)
            assert follower.first_steps == [2, 2]
        await here.follow(opened.handle, LOSSES[5:9], start=5)
        await here.live.journal.flush()
        for follower in followers:
            await follower.has(3, 7)
        await here.follow(opened.handle, LOSSES[9:10], start=9)
        await here.finish("a")
        async with asyncio.timeout(10):
            for follower in followers:
                await follower.task
                assert follower.losses == LOSSES[2:10].tolist()
                assert follower.views[-1].snapshot.next_step == 10
        assert not here.records._watchers._of


async def test_watching_without_follow_ends(tmp_path: Path, model_file: Path) -> None:
    """Without `follow` a watch ends at the newest step, from wherever it began."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        lrs = await here.follow(opened.handle, LOSSES[:5])
        for start in (0, 3, 5, 9):
            record = await here.history("a", start)
            assert record.lrs.tolist() == lrs[start:].tolist()


async def test_watching_ends_with_an_error_at_a_delete(tmp_path: Path, model_file: Path) -> None:
    """A follower of a deleted run hears that it is gone, even if its id is taken anew at once."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:2])
        await here.live.journal.flush()
        follower = Follower(here, "a")
        await follower.has(2, 2)
        deleting = asyncio.create_task(here.ending.delete("a"))
        creating = asyncio.create_task(here.open("a"))
        async with asyncio.timeout(10):
            await asyncio.gather(deleting, creating)
            with raises(Reason.RUN_NOT_FOUND):
                await follower.task


async def test_a_follower_sees_a_rewind(tmp_path: Path, model_file: Path) -> None:
    """Steps that were observed again after a rewind are sent again."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        follower = Follower(here, "a")
        await follower.has(2, 5)
        again = await here.open("a", resume_from=2)
        await here.follow(again.handle, [9.0, 8.0], start=2)
        await here.finish("a")
        async with asyncio.timeout(10):
            await follower.task
        assert follower.losses == [*LOSSES[:5].tolist(), 9.0, 8.0]


@pytest.mark.parametrize("step", [2, 3, 4])
async def test_a_follower_survives_a_rewind_in_the_midst_of_reading(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """What was read of a run before it was rewound is not held against what is read after."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        await here.live.journal.flush()
        durable, looks, handles = here.stored.get_durable, list[int](), list[int]()

        async def rewound_after(run_id: str) -> StoredRun:
            stored = await durable(run_id)
            looks.append(1)
            if len(looks) == 2:  # the first look is for the empty stretch
                handles.append((await here.open("a", resume_from=step)).handle)
            return stored

        monkeypatch.setattr(here.stored, "get_durable", rewound_after)
        follower = Follower(here, "a", from_step=3)
        await follower.has(1, 0)
        while not handles:  # noqa: ASYNC110  # until the follower is between its reads
            await asyncio.sleep(0.001)
        await here.follow(handles[0], [9.0, 8.0, 7.0], start=step)
        await here.finish("a")
        async with asyncio.timeout(10):
            await follower.task
        kept = [*LOSSES[:step].tolist(), 9.0, 8.0, 7.0]
        assert follower.losses == kept[min(step, 3) :]


async def test_followers_go_when_the_daemon_drains(tmp_path: Path, model_file: Path) -> None:
    """A drain ends follows, so that none holds it up."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a")
        follower = Follower(here, "a")
        await follower.has(1, 0)
        here.records.drain()
        async with asyncio.timeout(10):
            with raises(Reason.DRAINING):
                await follower.task


async def test_watching_needs_a_run(tmp_path: Path, model_file: Path) -> None:
    """An id that no run has cannot be watched, and leaves nothing behind."""
    async with harness(tmp_path / "d", model_file) as here:
        with raises(Reason.RUN_NOT_FOUND):
            await here.history("a")
        assert not here.records._watchers._of


# ------------------------------------------------------------------------- what reading stores


async def chunks(here: Harness, run_id: str) -> int:
    """Return how many chunks of a run's record the store has."""

    def count(store: Store) -> int:
        with store.reading() as connection:  # type: ignore[attr-defined]
            return int(
                connection.execute(
                    sa.select(sa.func.count())
                    .select_from(observations.join(runs, runs.c.key == observations.c.run_key))
                    .where(runs.c.run_id == run_id)
                ).scalar_one()
            )

    return await here.stored.in_store(count)


async def test_a_follower_reads_what_is_durable(tmp_path: Path, model_file: Path) -> None:
    """Following an active run stores nothing more: it reads what is flushed at the default interval."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        follower = Follower(here, "a")
        await follower.has(1, 0)
        for step in range(20):
            await here.follow(opened.handle, LOSSES[step : step + 1], start=step)
            here.records._watchers.wake(["a"])  # looking again has nothing stored either
            await here.stored.in_store(lambda _: None)
            if step % 5 == 4:
                await here.live.journal.flush()
                await follower.has(1, step + 1)
        assert here.store.calls.count("append") == here.live.journal.figures.count == 4
        assert await chunks(here, "a") == 4
        assert follower.losses == LOSSES[:20].tolist()
        await here.finish("a")
        async with asyncio.timeout(10):
            await follower.task


async def test_a_follower_among_many_runs_has_none_of_them_stored(tmp_path: Path, model_file: Path) -> None:
    """However many runs go on beside the one that is followed, each gets one chunk for each regular flush."""
    async with harness(tmp_path / "d", model_file) as here:
        names = [f"r{number}" for number in range(50)]
        handles = [(await here.open(name)).handle for name in names]
        follower = Follower(here, "r0")
        for step in range(6):
            await here.ask(handles, [step] * 50, LOSSES[:50] + step)
            await here.stored.in_store(lambda _: None)
            if step % 2:
                await here.live.journal.flush()
                await follower.has(1, step + 1)
        assert [await chunks(here, name) for name in names] == [3] * 50
        follower.task.cancel()


async def test_a_follower_goes_on_reading_while_the_store_cannot_write(
    tmp_path: Path, model_file: Path
) -> None:
    """A store that refuses to write keeps no follower from what is stored."""
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:3])
        await here.live.journal.flush()
        await here.follow(opened.handle, LOSSES[3:5], start=3)
        here.store.failing = {"append"}
        follower = Follower(here, "a")
        await follower.has(2, 3)
        here.store.failing.clear()
        await here.live.journal.flush()
        await follower.has(3, 5)
        follower.task.cancel()


async def test_reading_a_run_stores_that_run_alone(tmp_path: Path, model_file: Path) -> None:
    """GetRun, and the record without `follow`, store what the run has that is asked for; again, nothing."""
    async with harness(tmp_path / "d", model_file) as here:
        handles = {name: (await here.open(name)).handle for name in "abc"}
        for handle in handles.values():
            await here.follow(handle, LOSSES[:4])
        for _ in range(3):
            assert (await here.records.get("a")).durable_step == 3
        assert [await chunks(here, name) for name in "abc"] == [1, 0, 0]
        assert len(await here.history("b")) == 4
        assert [await chunks(here, name) for name in "abc"] == [1, 1, 0]
        assert here.live.journal.figures.count == 2
        assert here.live.journal.unflushed == 4
        record = here.live.groups[0].records["durable_step"][:3].tolist()
        assert record == [3, 3, -1]


async def test_listing_stores_what_it_lists(tmp_path: Path, model_file: Path) -> None:
    """A page has stored what its runs have; by a status, what the runs of the prefix have; no others."""
    async with harness(tmp_path / "d", model_file) as here:
        names = ["x/1", "x/2", "x/3", "y/1"]
        for name in names:
            await here.follow((await here.open(name)).handle, LOSSES[:3])
        page = await here.records.list(prefix="x/", status=None, after="", limit=2)
        assert [view.durable_step for view in page] == [2, 2]
        assert [await chunks(here, name) for name in names] == [1, 1, 0, 0]
        page = await here.records.list(prefix="x/", status=RunStatus.ACTIVE, after="", limit=1)
        assert [await chunks(here, name) for name in names] == [1, 1, 1, 0]
        assert len(await here.records.list(prefix="", status=RunStatus.FINISHED, after="", limit=9)) == 0
        assert [await chunks(here, name) for name in names] == [1, 1, 1, 0]


async def test_reads_that_come_together_share_a_flush(tmp_path: Path, model_file: Path) -> None:
    """Many runs read at once are stored in two flushes at most: one under way, and one for all who wait."""
    async with harness(tmp_path / "d", model_file) as here:
        names = [f"r{number}" for number in range(30)]
        for name in names:
            await here.follow((await here.open(name)).handle, LOSSES[:2])
        views = await asyncio.gather(*(here.records.get(name) for name in names))
        assert [view.durable_step for view in views] == [1] * 30
        assert here.live.journal.figures.count <= 2


async def test_a_failed_flush_fails_every_read_that_waits_for_it(tmp_path: Path, model_file: Path) -> None:
    """Reads that share a flush which fails all say so, and nothing is lost: a later one stores all of it."""
    async with harness(tmp_path / "d", model_file) as here:
        names = [f"r{number}" for number in range(5)]
        for name in names:
            await here.follow((await here.open(name)).handle, LOSSES[:2])
        here.store.failing = {"append"}
        failed = await asyncio.gather(*(here.records.get(name) for name in names), return_exceptions=True)
        assert [isinstance(one, AdvisorError) and one.reason == Reason.STORE for one in failed] == [True] * 5
        assert here.live.journal.unflushed == 10
        await here.open("fresh")  # what has nothing to store, and never had, is not held up by the others
        assert (await here.records.get("fresh")).durable_step == -1
        here.store.failing.clear()
        views = await asyncio.gather(*(here.records.get(name) for name in names))
        assert [view.durable_step for view in views] == [1] * 5
        for name in names:
            assert (await here.history(name)).losses.tolist() == LOSSES[:2].tolist()


# --------------------------------------------------------------------------------- listing


async def test_runs_are_listed_as_they_are_now(tmp_path: Path, model_file: Path) -> None:
    """A list has the newest step and status of each run, by prefix, status and page."""
    async with harness(tmp_path / "d", model_file) as here:
        for name in ("x/1", "x/2", "y/1", "y/2"):
            opened = await here.open(name)
            await here.follow(opened.handle, LOSSES[: int(name[-1])])
        await here.follow((await here.open("y/1")).handle, [math.nan] * 10, start=1)
        await here.finish("x/2")

        async def names(prefix: str, status: RunStatus | None, after: str = "") -> list[str]:
            views = await here.records.list(prefix=prefix, status=status, after=after, limit=2)
            return [f"{view.run_id} {view.snapshot.next_step}" for view in views]

        assert await names("", None) == ["x/1 1", "x/2 2"]
        assert await names("", None, "x/2") == ["y/1 11", "y/2 2"]
        assert await names("y/", None) == ["y/1 11", "y/2 2"]
        assert await names("", RunStatus.DIVERGED) == ["y/1 11"]
        assert await names("", RunStatus.FINISHED) == ["x/2 2"]
        assert await names("z", None) == []


async def test_a_follower_hears_of_updates_made_again(tmp_path: Path, model_file: Path) -> None:
    """Of steps that a rewind drops, the meta updates come again, too, once they are made again."""
    async with harness(tmp_path, model_file) as here:
        run = await learning(here)
        await run.go(LOSSES[:8].tolist())
        await here.live.journal.flush()
        heard: list[tuple[int, float]] = []

        async def follow() -> None:
            async for _, _, record in here.records.watch("run", 0, follow=True):
                heard.extend((update.step, update.alignment) for update in record.updates)

        following = asyncio.create_task(follow())
        await until(lambda: len(heard) == 2)
        run.opened = await here.open("run", META, resume_from=3)
        await here.ask(run.opened.handle, 3, LOSSES[23])
        await run.update(3, 0.25)
        await here.finish("run")
        await following
        assert heard[2:] == [(3, 0.25)]
