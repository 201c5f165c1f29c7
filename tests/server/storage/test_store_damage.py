"""What is damaged in a store: it is detected, named and deleted, and harms nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from grpc import StatusCode as Code

from mlrs_proto import v1 as pb
from mlrs_server.errors import Reason
from mlrs_server.storage import Recency, open_store
from mlrs_server.storage.sealing import seal
from tests.server.storage import stored
from tests.server.storage.stored import fill
from tests.server.support import LOSSES, advised, create, harness, raises, refused, service


@pytest.mark.parametrize(
    ("damage", "look"),
    [
        (
            "UPDATE runs SET snapshot = CAST(x'ffff' || substr(snapshot, 3) AS BLOB)",
            "get",
        ),
        ("UPDATE runs SET config = CAST(x'00' || substr(config, 2) AS BLOB)", "get"),
        (
            "UPDATE observations SET record = CAST(x'ff' || substr(record, 2) AS BLOB)",
            "read",
        ),
    ],
    ids=["snapshot", "config", "record"],
)
def test_a_damaged_record_is_detected(tmp_path: Path, damage: str, look: str) -> None:
    """Bytes changed in the file behind the store's back are an error, never another answer."""
    store = open_store(tmp_path / "store")
    run = stored.create(store, "a")
    fill(store, run, 4)
    store.close()
    file = sqlite3.connect(tmp_path / "store")
    file.execute(damage)
    file.commit()
    file.close()
    store = open_store(tmp_path / "store")
    with raises(Reason.DAMAGED, match="damaged record of run 'a'"):
        store.get(["a"]) if look == "get" else store.read(run.key, 0, 10)
    store.close()


@pytest.mark.parametrize("column", ["snapshot", "config", "status"])
async def test_a_damaged_run_can_be_deleted(tmp_path: Path, model_file: Path, column: str) -> None:
    """A run whose row cannot be read is deleted with its record, and its neighbour loses nothing."""
    async with harness(tmp_path / "d", model_file) as before:
        for run_id in ("bad", "good"):
            await before.follow((await before.open(run_id)).handle, LOSSES[:9])
    with closing(sqlite3.connect(tmp_path / "d" / "mlrs.sqlite3")) as file:
        value = 77 if column == "status" else b"damage"
        file.execute(f"UPDATE runs SET {column} = ? WHERE run_id = 'bad'", (value,))  # noqa: S608  # a column
        file.commit()
        async with harness(tmp_path / "d", model_file) as after:
            with raises(Reason.STORE_NEWER if column == "status" else Reason.DAMAGED, match="'bad'"):
                await after.open("bad")
            await after.ending.delete("bad")
            with raises(Reason.RUN_NOT_FOUND):
                await after.ending.delete("bad")
            assert len(await after.history("good")) == 9
            assert (await after.open("bad")).created
        assert file.execute("SELECT count(DISTINCT run_key) FROM observations").fetchone() == (1,)


@pytest.mark.parametrize(
    ("damage", "code", "reason"),
    [
        ("UPDATE runs SET snapshot = x'00'", Code.DATA_LOSS, "DAMAGED"),
        ("UPDATE runs SET config = x'00'", Code.DATA_LOSS, "DAMAGED"),
        ("UPDATE observations SET record = x'00'", Code.DATA_LOSS, "DAMAGED"),
        ("DELETE FROM observations", Code.DATA_LOSS, "DAMAGED"),
        ("UPDATE runs SET status = 91", Code.FAILED_PRECONDITION, "STORE_NEWER"),
        ("UPDATE runs SET config = :newer", Code.FAILED_PRECONDITION, "STORE_NEWER"),
    ],
)
async def test_what_no_further_call_cures_is_told_apart(
    tmp_path: Path, model_file: Path, damage: str, code: Code, reason: str
) -> None:
    """A damaged record is DATA_LOSS, one of a newer version FAILED_PRECONDITION, each by its own reason."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        await create(stub, "a")
        await advised(stub, "a", LOSSES[:5])
    newer = seal(b'{"no_such_field_yet": 1}')
    with closing(sqlite3.connect(tmp_path / "d" / "mlrs.sqlite3")) as file:
        file.execute(damage, {"newer": newer} if ":newer" in damage else {})
        file.commit()
    async with service(tmp_path / "d", model_file) as (stub, _):
        refusal = await refused(stub.Advise(pb.AdviseRequest(run_id="a", step=1, loss=LOSSES[1]), timeout=20))
        assert (refusal.code, refusal.reason) == (code, f"ERROR_REASON_{reason}")
        if "runs" in damage:
            refusal = await refused(stub.GetRun(pb.GetRunRequest(run_id="a"), timeout=20))
            assert (refusal.code, refusal.reason) == (code, f"ERROR_REASON_{reason}")


@pytest.mark.parametrize(
    ("lost", "first_step", "breaks_at"), [(0, 0, 0), (1, 0, 1), (1, 2, 2), (4, 1, 4), (5, 4, 5)]
)
def test_a_gap_in_a_record_is_named(tmp_path: Path, lost: int, first_step: int, breaks_at: int) -> None:
    """Where a chunk is missing, what comes after it is not taken for what should be there."""
    store = open_store(tmp_path / "store")
    run = stored.create(store, "a")
    fill(store, run, 1, 4, 5, 9, 10)
    store.close()
    file = sqlite3.connect(tmp_path / "store")
    file.execute("DELETE FROM observations WHERE first_step = ?", (lost,))
    file.commit()
    file.close()
    store = open_store(tmp_path / "store")
    with raises(Reason.DAMAGED, match=f"run 'a' breaks off at step {breaks_at};"):
        store.read(run.key, first_step, 10)
    store.close()


def test_a_list_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    """One damaged run does not hide the others: a list has as many as asked for, without it."""
    store = open_store(tmp_path / "store")
    for run_id in "abcd":
        stored.create(store, run_id)
    file = sqlite3.connect(tmp_path / "store")
    file.execute("UPDATE runs SET config = x'00' WHERE run_id = 'b'")
    file.commit()
    file.close()
    for limit in (1, 2, 3, 9):
        listed = store.list(prefix="", status=None, after="", limit=limit)
        assert [run.run_id for run in listed] == ["a", "c", "d"][:limit]
        newest = store.list(prefix="", status=None, after=Recency(), limit=limit)
        assert [run.run_id for run in newest] == ["d", "c", "a"][:limit]
    with raises(Reason.DAMAGED, match="damaged record of run 'b'"):
        store.get(["b"])
    store.close()
