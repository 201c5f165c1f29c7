"""Compaction of the records of idle runs, while advice continues."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from mlrs_core.config import RunConfig
from mlrs_server.ops.compaction import AT_ONCE, WORTHWHILE, compact_round
from tests.server.support import LOSSES, Harness, harness

CONFIG = RunConfig(horizon=400, num_classes=10)


def chunk_counts(folder: Path) -> list[int]:
    """Return how many chunks each run has, in the order of their keys."""
    with closing(sqlite3.connect(folder / "mlrs.sqlite3")) as file:
        found = file.execute("SELECT count(*) FROM observations GROUP BY run_key ORDER BY run_key").fetchall()
    return [count for (count,) in found]


async def filled_run(here: Harness, name: str, steps: int) -> int:
    """Open a run and store each of some steps by itself; return its handle."""
    handle = (await here.open(name, CONFIG)).handle
    for step in range(steps):
        await here.follow(handle, LOSSES[step : step + 1], start=step)
        await here.live.journal.flush()
    return handle


async def test_finished_runs_become_compact(tmp_path: Path, model_file: Path) -> None:
    """The record of a finished run becomes one chunk and reads the same; active runs are not compacted."""
    async with harness(tmp_path, model_file) as here:
        await filled_run(here, "done", 2 * WORTHWHILE)
        going = await filled_run(here, "going", 2 * WORTHWHILE)
        await here.finish("done")
        before = await here.history("done")
        assert await compact_round(here.live, here.stored, 0.0) == 1
        assert chunk_counts(tmp_path) == [1, 2 * WORTHWHILE]
        after = await here.history("done")
        assert before.losses.tobytes() == after.losses.tobytes()
        assert before.lrs.tobytes() == after.lrs.tobytes()
        assert await compact_round(here.live, here.stored, 0.0) == 0
        await here.follow(going, LOSSES[2 * WORTHWHILE :][:3], start=2 * WORTHWHILE)


async def test_idle_runs_become_compact_and_continue(tmp_path: Path, model_file: Path) -> None:
    """A run that was idle for long becomes compact while it is in memory, and continues."""
    async with harness(tmp_path, model_file) as here:
        handle = await filled_run(here, "idle", 2 * WORTHWHILE)
        assert await compact_round(here.live, here.stored, time.time() + 1) == 1
        assert chunk_counts(tmp_path) == [1]
        await here.follow(handle, LOSSES[2 * WORTHWHILE :][:5], start=2 * WORTHWHILE)
        record = await here.history("idle")
        assert record.losses.tobytes() == LOSSES[: 2 * WORTHWHILE + 5].tobytes()


async def test_a_damaged_run_does_not_keep_others_from_becoming_compact(
    tmp_path: Path, model_file: Path
) -> None:
    """A run whose chunks cannot be merged is left as it is; those after it are merged, and the round ends."""
    async with harness(tmp_path, model_file) as here:
        for name in ("damaged", "good"):
            await filled_run(here, name, WORTHWHILE)
            await here.finish(name)
        with closing(sqlite3.connect(tmp_path / "mlrs.sqlite3")) as file, file:
            file.execute("UPDATE observations SET record = x'00' WHERE run_key = 1 AND first_step = 3")
        assert await compact_round(here.live, here.stored, 0.0) == 1
        assert chunk_counts(tmp_path) == [WORTHWHILE, 1]


async def test_a_round_compacts_all_runs(tmp_path: Path, model_file: Path) -> None:
    """More runs than one query returns become compact in one round."""
    async with harness(tmp_path, model_file) as here:
        names = [f"run-{index}" for index in range(AT_ONCE + 3)]
        handles = [(await here.open(name, CONFIG)).handle for name in names]
        for step in range(WORTHWHILE):
            count = len(names)
            await here.ask(handles, [step] * count, [LOSSES[step]] * count)
            await here.live.journal.flush()
        await here.ending.finish_many(names)
        assert await compact_round(here.live, here.stored, 0.0) == len(names)
        assert chunk_counts(tmp_path) == [1] * len(names)
