"""What is read back from the file that Weights & Biases writes offline."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mlrs
from mlrs import writers
from mlrs.errors import UsageError
from tests.support.frameworks import framework

wandb = framework("wandb")
from wandb.proto import wandb_internal_pb2  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # of the library, in its threads


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A run of W&B that talks to no server; it has no settings of the machine's user."""
    for name in ("WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(project="mlrs", dir=tmp_path, mode="offline")
    yield run
    run.finish()


def records_of(file: bytes) -> Iterator[bytes]:
    """Yield the records of a file: LevelDB's log format after a header of seven bytes.

    A record is in parts, none of which crosses a boundary of 32 KiB; each begins with a checksum, its length
    and its kind, which is 1 for a whole record and 4 for the last part of one.
    """
    at, record = 7, b""
    while at < len(file):
        if (left := -at % 32768) and left < 7:  # too little for another part before the boundary
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", file, at)
        record += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def rows(run: Any, tmp_path: Path) -> list[dict[str, Any]]:
    """Finish a run of W&B, and return the rows of its history as they stand in its file."""
    run.finish()
    wandb.teardown()  # its process has written everything then
    (path,) = tmp_path.rglob("*.wandb")
    found = []
    for data in records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return found


def named(row: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a row that are not W&B's own."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


def test_each_advice_is_a_row(advisor: mlrs.Advisor, offline: Any, tmp_path: Path) -> None:
    """Every step is a row with an axis of its own, and rows of the user without `step=` stay whole."""
    run = advisor.run("task", on_advice=writers.wandb())
    lrs = []
    for step, loss in enumerate([2.0, 1.0, math.nan, 0.5]):
        lrs.append(run.next_lr(step, loss))
        offline.log({"own": step})
    run.finish()
    found = [named(row) for row in rows(offline, tmp_path)]
    advised = [row for row in found if "own" not in row]
    assert [row["mlrs/step"] for row in advised] == [0, 1, 2, 3]
    assert [row["mlrs/learning_rate"] for row in advised] == lrs
    assert repr([row["mlrs/loss"] for row in advised]) == "[2, 1, nan, 0.5]"
    assert [row for row in found if "own" in row] == [{"own": step} for step in range(4)]


def test_rows_are_shared_where_steps_are_the_same(
    advisor: mlrs.Advisor, offline: Any, tmp_path: Path
) -> None:
    """With `same_steps`, an advice is in the row of its step."""
    run = advisor.run("task", on_advice=writers.wandb(offline, same_steps=True))
    lrs = [run.next_lr(step, 1.0) for step in range(3)]
    run.finish()
    offline.log({"own": 5.0}, step=2)
    found = rows(offline, tmp_path)
    assert [row["_step"] for row in found] == [0, 1, 2]
    assert [row["mlrs/learning_rate"] for row in found] == lrs
    assert named(found[2])["own"] == 5.0


def test_without_a_run() -> None:
    """The error says what to call first."""
    with pytest.raises(UsageError, match=r"wandb\.init"):
        writers.wandb()
