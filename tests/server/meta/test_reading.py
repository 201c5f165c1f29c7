"""Reading runs in meta mode: it needs no model."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlrs_core.config import RunConfig
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.views import RunView
from mlrs_server.meta.apply import Adaptation
from mlrs_server.storage import Store, codec
from mlrs_server.storage.sealing import seal
from mlrs_server.storage.tables import runs
from tests.server.meta.support import META, Learning, learning, left_memory
from tests.server.support import LOSSES, Harness, harness, raises

NAMES = ["frozen", "one", "two"]


def shown(view: RunView) -> tuple[object, ...]:
    """Return what there is to see of a run, in comparable parts."""
    snapshot = view.snapshot
    moving = (snapshot.next_step, snapshot.last_loss.hex(), snapshot.last_lr.hex(), snapshot.state.tobytes())
    return (view.run_id, view.config, view.model_ref, *moving, view.durable_step, view.meta, view.last_update)


async def stored(folder: Path, model: Path | None, config: RunConfig) -> list[tuple[object, ...]]:
    """Store two runs that learn and one that does not; return what is to be seen of them while in memory."""
    async with harness(folder, model) as there:
        for name, steps in (("one", 12), ("two", 31)):
            await (await learning(there, name, config)).go(LOSSES[:steps].tolist())
        await there.open("frozen")
        return [shown(await there.records.get(name)) for name in NAMES]


def without_models(folder: Path) -> None:
    """Take all models away that the folder, and the store in it, have."""
    for file in (folder / "models").glob("*.safetensors"):
        file.unlink()
    with closing(sqlite3.connect(folder / "mlrs.sqlite3")) as database, database:
        database.execute("DELETE FROM models")


async def test_a_run_is_read_without_its_model(tmp_path: Path, model_file: Path, config: RunConfig) -> None:
    """Where a model is gone, its runs are shown, listed, followed and finished as they are; others, too."""
    before = await stored(tmp_path / "d", model_file, config)
    assert [meta.updates if meta else 0 for *_, meta, _ in before] == [0, 4, 10]  # type: ignore[attr-defined]
    without_models(tmp_path / "d")
    async with harness(tmp_path / "d", None) as there:
        with raises(Reason.MODEL_INVALID):  # it is gone
            await there.open("one", config)
        assert [shown(await there.records.get(name)) for name in NAMES] == before
        listed = await there.records.list(prefix="", status=RunStatus.ACTIVE, after="", limit=9)
        assert [shown(view) for view in listed] == before
        assert (await there.history("two")).losses.tolist() == LOSSES[:31].tolist()
        followed: list[float] = []

        async def follow() -> None:
            async for _, _, part in there.records.watch("two", 0, follow=True):
                followed.extend(part.losses.tolist())

        following = asyncio.create_task(follow())
        finished = await there.finish("two")
        async with asyncio.timeout(20):
            await following
        assert followed == LOSSES[:31].tolist()
        assert finished.meta == before[2][-2]
        await there.ending.delete("one")


async def test_what_is_shown_does_not_depend_on_memory(
    tmp_path: Path, model: Path | None, config: RunConfig
) -> None:
    """In memory, out of it, after a restart, completed by a later call: a run shows the same counters."""
    before = await stored(tmp_path / "d", model, config)
    async with harness(tmp_path / "d", model) as there:
        assert [shown(await there.records.get(name)) for name in NAMES] == before
        for name in NAMES:
            await there.open(name)
        assert [shown(await there.records.get(name)) for name in NAMES] == before
        await left_memory(there)
        assert [shown(await there.records.get(name)) for name in NAMES] == before
    async with harness(tmp_path / "d", model) as there:
        new = await there.open("new", RunConfig(num_classes=10, meta=config.meta))
        await there.open("new", RunConfig(horizon=400))
        run = Learning(there, new, Adaptation(there.live, there.stored))
        await run.go(LOSSES[:12].tolist())
        in_memory = shown(await there.records.get("new"))
        await left_memory(there)
        assert shown(await there.records.get("new")) == in_memory
        assert in_memory[-2] == before[1][-2]


async def test_counters_of_older_runs_are_shown_while_in_memory(tmp_path: Path, model_file: Path) -> None:
    """A run from before stores kept where its counters are is read without them until it is opened."""
    before = await stored(tmp_path / "d", model_file, META)
    async with harness(tmp_path / "d", model_file) as there:
        await as_before(there, "one")
        view = await there.records.get("one")
        assert view.meta is None
        assert (*shown(view)[:-2], view.last_update) == (*before[1][:-2], before[1][-1])
        await there.open("one")
        assert shown(await there.records.get("one")) == before[1]


async def as_before(there: Harness, run_id: str) -> None:
    """Store a run's config as versions did that did not keep where the counters are."""
    config = (await there.stored.get(run_id)).config

    def write(store: Store) -> None:
        with store.transaction() as connection:  # type: ignore[attr-defined]
            packed = codec.pack_config(config)
            connection.execute(runs.update().where(runs.c.run_id == run_id).values(config=packed))

    await there.stored.in_store(write)


@pytest.mark.parametrize("place", [-1, 0.5, "x"])
def test_a_place_of_counters_that_is_none_is_of_a_newer_version(place: object) -> None:
    """What a config says of the counters, and this version cannot read, is an error that says to upgrade."""
    body = seal(codec._JSON.encode({"counters_at": place}).encode())
    with pytest.raises(AdvisorError, match="newer version of mlrs") as caught:
        codec.unpack_config(body, "a")
    assert caught.value.reason == Reason.STORE_NEWER
