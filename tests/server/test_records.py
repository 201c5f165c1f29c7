"""Reading runs, and following them, without a wire."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from mlrs_server.errors import Reason
from mlrs_server.ledger import RunStatus
from mlrs_server.live import RunView
from mlrs_server.store import Observations, StoredRun
from tests.server.adapting.support import META, learning
from tests.server.support import LOSSES, Room, raises, room, until

# --------------------------------------------------------------------------------- watching


class Follower:
    """Collects what a watch yields, and lets a test wait for a number of steps."""

    def __init__(self, here: Room, run_id: str, *, from_step: int = 0) -> None:
        self.first_steps: list[int] = []
        self.losses: list[float] = []
        self.views: list[RunView] = []
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._follow(here, run_id, from_step))

    async def _follow(self, here: Room, run_id: str, from_step: int) -> None:
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
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        followers = [Follower(here, "a", from_step=2) for _ in range(5)]
        for follower in followers:
            await follower.has(2, 3)
            assert follower.first_steps == [2, 2]
        await here.follow(opened.handle, LOSSES[5:9], start=5)
        await here.live.journal.flush()
        for follower in followers:
            await follower.has(3, 7)
        await here.follow(opened.handle, LOSSES[9:10], start=9)
        await here.lifecycle.finish("a")
        async with asyncio.timeout(10):
            for follower in followers:
                await follower.task
                assert follower.losses == LOSSES[2:10].tolist()
                assert follower.views[-1].snapshot.next_step == 10
        assert not here.records._watchers._of


async def test_watching_without_follow_ends(tmp_path: Path, model_file: Path) -> None:
    """Without `follow` a watch ends at the newest step, from wherever it began."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        lrs = await here.follow(opened.handle, LOSSES[:5])
        for start in (0, 3, 5, 9):
            record = await here.history("a", start)
            assert record.lrs.tolist() == lrs[start:].tolist()


async def test_watching_ends_with_an_error_at_a_delete(tmp_path: Path, model_file: Path) -> None:
    """A follower of a deleted run hears that it is gone, even if its id is taken anew at once."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:2])
        follower = Follower(here, "a")
        await follower.has(2, 2)
        deleting = asyncio.create_task(here.lifecycle.delete("a"))
        creating = asyncio.create_task(here.open("a"))
        async with asyncio.timeout(10):
            await asyncio.gather(deleting, creating)
            with raises(Reason.RUN_NOT_FOUND):
                await follower.task


async def test_a_follower_sees_a_rewind(tmp_path: Path, model_file: Path) -> None:
    """Steps that were observed again after a rewind are sent again."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        follower = Follower(here, "a")
        await follower.has(2, 5)
        again = await here.open("a", resume_from=2)
        await here.follow(again.handle, [9.0, 8.0], start=2)
        await here.lifecycle.finish("a")
        async with asyncio.timeout(10):
            await follower.task
        assert follower.losses == [*LOSSES[:5].tolist(), 9.0, 8.0]


@pytest.mark.parametrize("step", [2, 3, 4])
async def test_a_follower_survives_a_rewind_in_the_midst_of_reading(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """What was read of a run before it was rewound is not held against what is read after."""
    async with room(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:5])
        required, looks, handles = here.live.required, list[int](), list[int]()

        async def rewound_after(run_id: str) -> StoredRun:
            stored = await required(run_id)
            looks.append(1)
            if len(looks) == 2:  # the first look is for the empty stretch
                handles.append((await here.open("a", resume_from=step)).handle)
            return stored

        monkeypatch.setattr(here.live, "required", rewound_after)
        follower = Follower(here, "a", from_step=3)
        await follower.has(1, 0)
        while not handles:  # noqa: ASYNC110  # until the follower is between its reads
            await asyncio.sleep(0.001)
        await here.follow(handles[0], [9.0, 8.0, 7.0], start=step)
        await here.lifecycle.finish("a")
        async with asyncio.timeout(10):
            await follower.task
        kept = [*LOSSES[:step].tolist(), 9.0, 8.0, 7.0]
        assert follower.losses == kept[min(step, 3) :]


async def test_followers_go_when_the_daemon_drains(tmp_path: Path, model_file: Path) -> None:
    """A drain ends follows, so that none holds it up."""
    async with room(tmp_path / "d", model_file) as here:
        await here.open("a")
        follower = Follower(here, "a")
        await follower.has(1, 0)
        here.records.drain()
        async with asyncio.timeout(10):
            with raises(Reason.DRAINING):
                await follower.task


async def test_watching_needs_a_run(tmp_path: Path, model_file: Path) -> None:
    """An id that no run has cannot be watched, and leaves nothing behind."""
    async with room(tmp_path / "d", model_file) as here:
        with raises(Reason.RUN_NOT_FOUND):
            await here.history("a")
        assert not here.records._watchers._of


# --------------------------------------------------------------------------------- listing


async def test_runs_are_listed_as_they_are_now(tmp_path: Path, model_file: Path) -> None:
    """A list has the newest step and status of each run, by prefix, status and page."""
    async with room(tmp_path / "d", model_file) as here:
        for name in ("x/1", "x/2", "y/1", "y/2"):
            opened = await here.open(name)
            await here.follow(opened.handle, LOSSES[: int(name[-1])])
        await here.follow((await here.open("y/1")).handle, [math.nan] * 10, start=1)
        await here.lifecycle.finish("x/2")

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
    async with room(tmp_path, model_file) as here:
        run = await learning(here)
        await run.go(LOSSES[:8].tolist())
        heard: list[tuple[int, float]] = []

        async def follow() -> None:
            async for _, _, record in here.records.watch("run", 0, follow=True):
                heard.extend((update.step, update.alignment) for update in record.updates)

        following = asyncio.create_task(follow())
        await until(lambda: len(heard) == 2)
        run.opened = await here.open("run", META, resume_from=3)
        await here.ask(run.opened.handle, 3, LOSSES[23])
        await run.update(3, 0.25)
        await here.lifecycle.finish("run")
        await following
        assert heard[2:] == [(3, 0.25)]
