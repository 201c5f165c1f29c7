"""Reading records in buckets and in samples, without a wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_core.config import RunConfig
from mlrs_server.domain.run_events import RunEvent, RunEventKind
from mlrs_server.errors import Reason
from mlrs_server.runs import summaries
from mlrs_server.runs.summaries import Part, Position, RunSummaries, SummarizedRecord
from mlrs_server.storage import Store
from mlrs_server.storage.run_events import KEPT
from tests.server.meta.support import STEPS, learning
from tests.server.storage.stored import fill, got
from tests.server.support import LOSSES, harness, raises, until

Row = tuple[Any, ...]


class Page:
    """What a client shows of a run: it merges each answer into what it has, as the contract says."""

    def __init__(self, reading: RunSummaries, run_id: str, part: Part) -> None:
        self._reading, self._run_id = reading, run_id
        self.rows: dict[int, Row] = {}
        self.asked: Part | Position = part
        self.first_steps: list[int] = []

    async def read(self) -> SummarizedRecord:
        """Read all that is new."""
        while True:
            answer = await self._reading.summarize(self._run_id, self.asked)
            self.asked = answer.position
            self.first_steps.append(answer.summary.first_step)
            self.rows = {step: row for step, row in self.rows.items() if step < answer.summary.first_step}
            self.rows |= rows_of(answer)
            if not answer.has_more:
                return answer


def rows_of(answer: SummarizedRecord) -> dict[int, Row]:
    """Return the buckets of an answer by their first steps, in text: NaNs are equal, and so are roundings."""
    summary = answer.summary
    columns = (*summary.losses, *summary.lrs, summary.held)
    extras = dict(zip(summary.extras.positions.tolist(), summary.extras.values.tolist(), strict=True))
    updates = {update.step // summary.width: update for update in answer.updates}
    return {
        (step := summary.first_step + index * summary.width): (
            *(f"{column[index]:.12g}" for column in columns),
            f"{extras.get(index)}",
            updates.get(step // summary.width),
        )
        for index in range(len(summary.held))
    }


async def whole(reading: RunSummaries, run_id: str, at: Position) -> dict[int, Row]:
    """Return all buckets of the part that a position is of, read at once."""
    return rows_of(await reading.summarize(run_id, replace(at, next_step=at.begin)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first_step", [0, 21])
async def test_what_grows_is_what_is_read_at_once(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, seed: int, first_step: int
) -> None:
    """However a run goes on, is rewound, begun again and read, a page shows what a fresh one would."""
    monkeypatch.setattr(summaries, "PAGE", 7)
    monkeypatch.setattr(summaries, "MOST_STEPS", 32)
    rng = np.random.default_rng(seed)
    async with harness(tmp_path / "d", model_file) as here:
        reading, at = RunSummaries(here.stored), 0
        opened = await here.open("a")
        page = Page(reading, "a", Part(first_step=first_step, to_step=first_step + 60, most_buckets=20))
        for _ in range(30):
            action = rng.choice(
                ["observe", "observe", "store", "read", "rewind", "restart"],
                p=[0.3, 0.2, 0.2, 0.2, 0.08, 0.02],
            )
            if action == "observe":
                count = int(rng.integers(1, 20))
                await here.follow(opened.handle, rng.choice(LOSSES, count), start=at)
                at += count
            elif action == "store":
                await here.live.journal.flush()
            elif action == "read":
                await page.read()
            elif action == "rewind":
                at = int(rng.integers(0, at + 1))
                opened = await here.open("a", resume_from=at)
            else:
                opened, at = await here.open("a", mode="restart"), 0
        await here.live.journal.flush()
        last = await page.read()
        monkeypatch.undo()
        wanted = await whole(reading, "a", last.position)
        assert page.rows == wanted


async def test_only_what_is_durable_is_read(tmp_path: Path, model_file: Path) -> None:
    """Reading stores nothing; what is stored later comes with the next call, the last bucket again."""
    async with harness(tmp_path / "d", model_file) as here:
        reading = RunSummaries(here.stored)
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:10])
        page = Page(reading, "a", Part(to_step=100, most_buckets=25))
        answer = await page.read()
        assert (answer.summary.end, answer.view.durable_step, page.rows) == (0, -1, {})
        await here.live.journal.flush()
        await page.read()
        assert list(page.rows) == [0, 4, 8]
        await here.follow(opened.handle, LOSSES[10:13], start=10)
        await here.live.journal.flush()
        assert (await page.read()).summary.end == 13
        assert page.first_steps == [0, 0, 8]
        assert list(page.rows) == [0, 4, 8, 12]
        assert here.store.calls.count("append") == 2


async def test_a_rewind_brings_its_buckets_again(tmp_path: Path, model_file: Path) -> None:
    """After rewinds, the next answer begins at the bucket of the lowest step; of a new run, at 0."""
    async with harness(tmp_path / "d", model_file) as here:
        reading = RunSummaries(here.stored)
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:40])
        await here.live.journal.flush()
        page = Page(reading, "a", Part(most_buckets=10))
        await page.read()
        for step in (30, 14, 9, 9):
            await here.open("a", resume_from=step)
        assert (await page.read()).summary.end == 9
        assert list(page.rows) == [0, 4, 8]
        assert page.first_steps == [0, 8]
        await page.read()
        assert page.first_steps == [0, 8, 8]
        opened = await here.open("a", mode="restart")
        await here.follow(opened.handle, LOSSES[:3])
        await here.live.journal.flush()
        await page.read()
        assert page.first_steps[-1] == 0
        assert list(page.rows) == [0]


async def test_rewinds_that_are_forgotten_count(tmp_path: Path, model_file: Path) -> None:
    """Where events that a page has not seen are not kept any more, its part begins anew."""
    async with harness(tmp_path / "d", model_file) as here:
        reading = RunSummaries(here.stored)
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:40])
        await here.live.journal.flush()
        page = Page(reading, "a", Part(first_step=8, most_buckets=8))
        await page.read()
        run = await here.stored.get("a")
        event = RunEvent(kind=RunEventKind.RESUMED, step=40)
        await here.stored.in_store(lambda store: store.add_events([(run, event)] * KEPT))
        await page.read()
        await here.stored.in_store(lambda store: store.add_events([(run, event)] * (KEPT + 1)))
        await page.read()
        assert page.first_steps == [8, 36, 8]


async def test_a_rewind_while_a_record_is_read_begins_the_reading_again(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer mixes steps of before and after a rewind."""
    monkeypatch.setattr(summaries, "PAGE", 10)
    async with harness(tmp_path / "d", model_file) as here:
        reading = RunSummaries(here.stored)
        opened = await here.open("a", RunConfig(horizon=50))
        for first in range(0, 50, 10):
            await here.follow(opened.handle, LOSSES[first : first + 10], start=first)
            await here.live.journal.flush()
        store, pages = here.store, 0
        read_once = store._store.read

        def read(*args: Any, **kwargs: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 3:
                run = got(store._store, "a")
                event = RunEvent(kind=RunEventKind.REWOUND, step=5, from_step=50)
                store._store.rewind(run, replace(run.snapshot, next_step=5), event)
            return read_once(*args, **kwargs)

        monkeypatch.setattr(store._store, "read", read)
        answer = await reading.summarize("a", Part())
        assert (answer.summary.end, answer.position.event) == (5, 1)
        np.testing.assert_array_equal(answer.summary.losses[0], LOSSES[:5])
        monkeypatch.undo()


async def test_a_long_record_leaves_the_store_to_others(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record in small chunks is read few at a time, so that a flush waits for some of them only."""
    monkeypatch.setattr(summaries, "PAGE_CHUNKS", 8)
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a")
        run = await here.stored.get("a")
        await here.stored.in_store(partial(_fill, run, list(range(1, 201))))
        reading = RunSummaries(here.stored)
        here.store.unblocked.clear()
        here.store.passing |= {"get", "run_events"}
        task = asyncio.create_task(reading.summarize("a", Part()))
        await until(lambda: "read" in here.store.calls)
        other = asyncio.create_task(here.stored.count_unfinished(""))
        await asyncio.sleep(0)
        here.store.unblocked.set()
        await other
        assert not task.done()
        answer = await task
        assert answer.summary.end == 200
        after = here.store.calls[here.store.calls.index("count_unfinished") :]
        assert after.count("read") >= 200 // 8 - 1


def _fill(run: Any, ends: list[int], store: Store) -> None:
    fill(store, run, *ends)


async def test_a_call_reads_so_many_steps(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long record comes in several answers, whose buckets follow each other."""
    monkeypatch.setattr(summaries, "MOST_STEPS", 64)
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a")
        await here.follow(opened.handle, LOSSES[:200])
        await here.live.journal.flush()
        page = Page(RunSummaries(here.stored), "a", Part(most_buckets=20))
        await page.read()
        assert page.first_steps == [0, 64, 128, 192]
        assert list(page.rows) == list(range(0, 200, 16))


async def test_the_last_meta_update_of_each_bucket_comes(tmp_path: Path, model_file: Path) -> None:
    """In meta mode, each bucket has the newest of its updates; one that comes late is not missed."""
    async with harness(tmp_path / "d", model_file) as here:
        run = await learning(here)
        await run.go(LOSSES[:STEPS])
        await here.live.journal.flush()
        page = Page(RunSummaries(here.stored), "run", Part(to_step=92, most_buckets=23))
        answer = await page.read()
        newest = {update.update.step // 4: update.update for update in run.applied}
        assert list(answer.updates) == list(newest.values())
        await here.ask(run.opened.handle, STEPS, LOSSES[STEPS])
        await here.ask(run.opened.handle, STEPS + 1, LOSSES[STEPS + 1])
        await here.live.journal.flush()
        assert (await page.read()).summary.end == 92
        late = await run.update(91)
        await here.live.journal.flush()
        assert (await page.read()).updates == [late.update]


async def test_nothing_is_read_of_no_run(tmp_path: Path, model_file: Path) -> None:
    """A run that does not exist, or not any more, is not found; a malformed id is refused."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a")
        reading = RunSummaries(here.stored)
        position = (await reading.summarize("a", Part())).position
        await here.ending.delete("a")
        for asked in (Part(), position):
            with raises(Reason.RUN_NOT_FOUND):
                await reading.summarize("a", asked)
        with raises(Reason.INVALID_FIELD, field="run_id"):
            await reading.summarize("a b", Part())


async def test_a_damaged_record_is_an_error(tmp_path: Path, model_file: Path) -> None:
    """A record with a chunk less is not shown as a shorter one."""
    async with harness(tmp_path / "d", model_file) as here:
        await here.open("a")
        run = await here.stored.get("a")
        await here.stored.in_store(partial(_fill, run, [10, 20]))
        here.live.drop("a")
        await here.stored.in_store(_drop_chunk)
        with raises(Reason.DAMAGED, match="from step 10 on"):
            await RunSummaries(here.stored).summarize("a", Part())


def _drop_chunk(store: Any) -> None:
    with store._store.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM observations WHERE first_step = 10")


# --------------------------------------------------------------------------------- samples


async def test_samples_are_evenly_spaced(tmp_path: Path, model_file: Path) -> None:
    """Each run gives its first and newest durable steps and some between, in the order asked for."""
    async with harness(tmp_path / "d", model_file) as here:
        for name, count in (("long", 200), ("short", 3), ("none", 0)):
            opened = await here.open(name)
            await here.follow(opened.handle, LOSSES[:count])
        await here.live.journal.flush()
        lrs = {name: (await here.history(name)).lrs for name in ("long", "short")}
        reading = RunSummaries(here.stored)
        samples = await reading.sample(["short", "nobody", "none", "long"], 5)
        assert [one.run_id for one in samples] == ["short", "none", "long"]
        assert [one.steps.tolist() for one in samples] == [[0, 1, 2], [], [0, 49, 99, 149, 199]]
        for one in samples:
            np.testing.assert_array_equal(one.losses, LOSSES[one.steps])
            np.testing.assert_array_equal(one.lrs, lrs.get(one.run_id, np.empty(0))[one.steps])
        with raises(Reason.INVALID_FIELD, field="run_ids", match="given twice"):
            await reading.sample(["short", "short"], 5)


async def test_samples_leave_out_what_is_damaged(tmp_path: Path, model_file: Path) -> None:
    """Of a record that lacks a chunk the other steps come, and a run that cannot be read is left out."""
    async with harness(tmp_path / "d", model_file) as here:
        for name in ("a", "b"):
            await here.open(name)
            run = await here.stored.get(name)
            await here.stored.in_store(partial(_fill, run, [10, 20, 30]))
            here.live.drop(name)
        await here.stored.in_store(_drop_chunk)
        await here.stored.in_store(_spoil_run)
        (sample,) = await RunSummaries(here.stored).sample(["b", "a"], 30)
        assert sample.run_id == "a"
        assert sample.steps.tolist() == [*range(10), *range(20, 30)]


def _spoil_run(store: Any) -> None:
    with store._store.transaction() as connection:
        connection.exec_driver_sql("UPDATE runs SET snapshot = x'00' WHERE run_id = 'b'")
