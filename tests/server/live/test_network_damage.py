"""A stored network that is damaged: it is made again of the run's record, or the run is refused."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from mlrs_core.config import RunConfig
from mlrs_server.domain import updates
from mlrs_server.errors import Reason
from mlrs_server.ops.checking import BOTH, MADE_AGAIN, PERHAPS, check_runs, check_whole
from mlrs_server.storage import Store
from mlrs_server.storage.sealing import seal
from mlrs_server.storage.tables import meta_updates, networks, observations
from tests.server.meta.support import META, STEPS, learning, left_memory, undisturbed
from tests.server.support import LOSSES, Harness, harness, raises
from tests.support.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest) -> str | None:
    """Each of the stores: the file in the data folder, or a database."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


async def do(there: Harness, statement: sa.Executable) -> None:
    """Change something in the store behind its back."""

    def execute(store: Store) -> None:
        with store.transaction() as connection:  # type: ignore[attr-defined]
            connection.execute(statement)

    await there.stored.in_store(execute)


async def change(there: Harness, column: str, changed: Callable[[bytes], bytes]) -> None:
    """Change what is stored of the only network."""

    def read(store: Store) -> bytes:
        with store.reading() as connection:  # type: ignore[attr-defined]
            blob: bytes = connection.execute(sa.select(networks.c[column])).scalar_one()
            return blob

    blob = changed(await there.stored.in_store(read))
    await do(there, networks.update().values({column: blob}))


async def flip(there: Harness, column: str) -> None:
    """Flip a bit in the middle of it."""
    await change(there, column, flipped)


def flipped(blob: bytes) -> bytes:
    """Return bytes with a bit flipped in their middle."""
    place = len(blob) // 2
    return blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :]


def shorter(blob: bytes) -> bytes:
    """Return a network without its last number, its checksum right."""
    return seal(zlib.compress(zlib.decompress(blob[:-4])[:-4]))


def other(blob: bytes) -> bytes:
    """Return a network with another number in its middle, its checksum right."""
    return seal(zlib.compress(flipped(zlib.decompress(blob[:-4]))))


async def stored_half(folder: Path, model: Path | None, config: RunConfig, where: str | None) -> None:
    """Let a run go half its way, with a network stored on it, and updates after that."""
    async with harness(folder, model, store=where) as there:
        run = await learning(there, config=config)
        for start in (0, 20):
            await run.go(LOSSES[start : start + 20].tolist(), start)
            await there.live.journal.flush()


@pytest.mark.parametrize("column", ["data", "snapshot"])
async def test_a_damaged_network_is_made_again(
    tmp_path: Path,
    model: Path | None,
    config: RunConfig,
    where: str | None,
    column: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run whose stored network is damaged goes on bit for bit, with a warning, and stores a good one."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    expected = await undisturbed(tmp_path / "calm", model, config)
    await stored_half(tmp_path / "d", model, config, where)
    async with harness(tmp_path / "d", model, store=where) as there:
        await flip(there, column)
        with capture_logs() as said:
            run = await learning(there, config=config)
        (warning,) = [line for line in said if line["log_level"] == "warning"]
        assert (warning["event"], warning["run_id"], warning["replayed"]) == ("network_damaged", "run", 40)
        await run.go(LOSSES[40:41].tolist(), 40)  # and no update
        await there.live.journal.flush()
        await left_memory(there)
        with capture_logs() as said:
            run.opened = await there.open("run")
        assert [line["event"] for line in said if line["log_level"] == "warning"] == []
        stored = await there.stored.get("run")
        assert (await there.stored.replay(stored)).network_step == 41
        await run.go(LOSSES[41:STEPS].tolist(), 41)
    assert [lr.hex() for lr in run.lrs] == [lr.hex() for lr in expected[40:]]


async def test_a_run_with_a_damaged_network_is_rewound(
    tmp_path: Path, model_file: Path, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewound to before or after its damaged network, a run goes on as if it had never gone further."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    expected = await undisturbed(tmp_path / "calm", model_file, META)
    await stored_half(tmp_path / "d", model_file, META, where)
    async with harness(tmp_path / "d", model_file, store=where) as there:
        await flip(there, "data")
        for step in (38, 25, 5):
            run = await learning(there)
            run.opened = await there.open("run", resume_from=step)
            await run.go(LOSSES[step:60].tolist(), step)
            assert run.lrs == expected[step:60]


@pytest.mark.parametrize(
    ("lost", "problem"),
    [
        (meta_updates.delete().where(meta_updates.c.step == 8), "meta updates are missing"),
        (meta_updates.update().values(record=b"damage"), "damaged record"),
        (
            observations.delete().where(observations.c.first_step == 0),
            "record of run .* breaks off at step 0",
        ),
    ],
    ids=["update-gone", "update-damaged", "losses-gone"],
)
async def test_a_damaged_network_with_half_a_record_is_refused(
    tmp_path: Path,
    model_file: Path,
    where: str | None,
    lost: sa.Executable,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the record does not give the network again, the error says so, and what to do; that helps."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    await stored_half(tmp_path / "d", model_file, META, where)
    async with harness(tmp_path / "d", model_file, store=where) as there:
        await flip(there, "data")
        await do(there, lost)
        for _ in range(2):
            with raises(Reason.DAMAGED, match=f"network of run 'run' is.*{problem}.*mlrs runs delete"):
                await there.open("run")
        await there.ending.delete("run")
        assert (await there.open("run", META)).created


async def checked(there: Harness, *, replay: bool) -> list[str]:
    """Return what `mlrs store check` finds in the only run."""
    catalog = there.catalog if replay else None
    return [
        one.problem
        for one in await there.stored.in_store(lambda store: list(check_runs(store, catalog)))  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(
    ("column", "changed", "read", "replayed"),
    [
        ("data", bytes, "", ""),
        ("data", flipped, MADE_AGAIN + PERHAPS, MADE_AGAIN),
        ("snapshot", flipped, MADE_AGAIN + PERHAPS, MADE_AGAIN),
        ("data", lambda _: seal(b"no network"), MADE_AGAIN + PERHAPS, MADE_AGAIN),
        ("data", lambda _: seal(zlib.compress(b"")), MADE_AGAIN + PERHAPS, MADE_AGAIN),
        ("data", lambda blob: seal(blob[:-8]), MADE_AGAIN + PERHAPS, MADE_AGAIN),
        ("data", shorter, "", MADE_AGAIN),
        ("data", other, "", "its stored network is not what its record gives here"),
    ],
    ids=["good", "network", "snapshot", "odd", "empty", "cut", "shorter", "other"],
)
async def test_stored_networks_are_checked(
    tmp_path: Path,
    model_file: Path,
    where: str | None,
    column: str,
    changed: Callable[[bytes], bytes],
    read: str,
    replayed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that is damaged is found and its run named; with the model also one of another size."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    await stored_half(tmp_path / "d", model_file, META, where)
    async with harness(tmp_path / "d", model_file, store=where) as there:
        await change(there, column, changed)
        assert await checked(there, replay=False) == [read]
        assert await checked(there, replay=True) == [replayed]


async def test_a_damaged_network_of_a_damaged_run_is_told(
    tmp_path: Path, model_file: Path, where: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the record is damaged as well, the check says that the run cannot go on, and what to do."""
    monkeypatch.setattr(updates, "CHECKPOINT_UPDATES", 5)
    await stored_half(tmp_path / "d", model_file, META, where)
    async with harness(tmp_path / "d", model_file, store=where) as there:
        await do(there, meta_updates.update().where(meta_updates.c.step == 8).values(record=b"damage"))
        (alone,) = await checked(there, replay=False)
        assert "damaged record" in alone
        assert BOTH not in alone
        await flip(there, "data")
        for replay in (False, True):
            assert await checked(there, replay=replay) == [f"{alone}; {BOTH}"]


async def test_networks_of_no_run_are_told(tmp_path: Path, model_file: Path, where: str | None) -> None:
    """Networks and updates that are of no run are counted."""
    async with harness(tmp_path / "d", model_file, store=where) as there:
        await do(there, networks.insert().values(run_key=9, step=1, updates=1, snapshot=b"", data=b""))
        await do(there, meta_updates.insert().values(run_key=9, step=1, record=b""))
        found = await there.stored.in_store(check_whole)  # type: ignore[arg-type]
        assert found == ["1 meta updates are of no run", "1 networks are of no run"]
