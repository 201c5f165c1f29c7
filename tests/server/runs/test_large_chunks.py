"""Reading records with chunks as large as they were stored before their size was bounded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mlrs_core.config import Optimizer, RunConfig
from mlrs_server.live.replay import PAGE
from mlrs_server.ops.checking import check_runs
from mlrs_server.runs.summaries import Part, RunSummaries
from mlrs_server.storage import observation_log
from mlrs_server.storage.chunks import CHUNK, pack_chunk
from mlrs_server.storage.tables import observations
from tests.server.runs.memories import begin, end
from tests.server.storage.stored import got, same, snapshot_at, stretch, updates
from tests.server.support import Harness, harness

STEPS = 10 * CHUNK
SMALL = 100
"""The steps of the chunk before the large one, so that no page of a reader ends where a chunk does."""


async def with_a_large_chunk(here: Harness) -> None:
    """Store a run with a small chunk, and one as large as no flush stores it any more."""
    await begin(here, "a", RunConfig(horizon=STEPS, optimizer=Optimizer.ADAM, batch_size=8))
    store = here.store._store
    run, large = got(store, "a"), stretch(SMALL, STEPS)
    store.append([updates([(run, 0, stretch(0, SMALL), snapshot_at(SMALL))])])
    store.append([updates([(run, SMALL, large.cut(0, 1), snapshot_at(STEPS))])])
    here.live.drop("a")
    with store.transaction() as connection:
        values = {"steps": len(large), "record": pack_chunk(large)}
        connection.execute(observations.update().where(observations.c.first_step == SMALL).values(values))


async def summarized(here: Harness) -> None:
    """Read the whole summary of the run."""
    summary = (await RunSummaries(here.stored).summarize("a", Part(most_buckets=4096))).summary
    assert summary.end == STEPS
    np.testing.assert_array_equal(summary.losses[0], stretch(0, STEPS).losses[:: summary.width])


async def watched(here: Harness) -> None:
    """Read the whole record, in stretches that fit into messages."""
    parts = [part async for _, _, part in here.records.watch("a", 0, follow=False)]
    assert max(map(len, parts)) <= PAGE
    whole = stretch(0, STEPS)
    np.testing.assert_array_equal(np.concatenate([part.losses for part in parts]), whole.losses)
    assert sum(len(part.extras) for part in parts) == len(whole.extras)


async def replayed(here: Harness) -> None:
    """Rewind the run, for which it is replayed."""
    opened = await here.open("a", resume_from=STEPS - 1)
    assert opened.view.snapshot.next_step == STEPS - 1


async def ended(here: Harness) -> None:
    """Finish the run, for which the end of its record is measured."""
    await end(here, "a")


async def checked(here: Harness) -> None:
    """Check the run's record as `mlrs check` does."""
    (found,) = check_runs(here.store._store, None)
    assert found.steps == STEPS


@pytest.mark.parametrize("read", [summarized, watched, replayed, ended, checked])
async def test_each_chunk_is_read_once(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    """However large a chunk is, a reader of a whole record unpacks about as many bytes as the record has."""
    unpacked, unpack = 0, observation_log.unpack_consecutive

    def counting(chunks: Iterable[tuple[int, bytes]], *args: Any) -> Any:
        nonlocal unpacked
        some = list(chunks)
        unpacked += sum(len(data) for _, data in some)
        return unpack(some, *args)

    async with harness(tmp_path / "d", model_file) as here:
        await with_a_large_chunk(here)
        with here.store._store.reading() as connection:
            size = connection.scalar(sa.select(sa.func.sum(sa.func.length(observations.c.record))))
        monkeypatch.setattr(observation_log, "unpack_consecutive", counting)
        await read(here)
    assert size / 2 < unpacked < 2.5 * size


async def test_large_chunks_stay_as_they_are(tmp_path: Path, model_file: Path) -> None:
    """Merging leaves a chunk that is larger than the bound, and makes none that is."""
    async with harness(tmp_path / "d", model_file) as here:
        await with_a_large_chunk(here)
        store = here.store._store
        run, stop = got(store, "a"), STEPS + 3 * (CHUNK // 2)
        for first in range(STEPS, stop, CHUNK // 2):
            part = stretch(first, first + CHUNK // 2)
            store.append([updates([(run, first, part, snapshot_at(first + CHUNK // 2))])])
        step: int | None = 0
        while step is not None:
            step = store.merge(run, step)
        with store.reading() as connection:
            rows = connection.execute(sa.select(observations.c.steps).order_by("first_step")).scalars().all()
        assert rows == [SMALL, STEPS - SMALL, CHUNK, CHUNK // 2]
        assert same(store.read(run.key, STEPS - 5, 10), stretch(STEPS - 5, STEPS + 5))
