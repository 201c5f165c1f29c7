"""A store that an earlier version wrote: its runs, records and advice are the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_proto import v1 as pb
from tests.server.support import advised, create, refused, service

STORED = Path(__file__).parent / "stores" / "before-versions"
"""A database whose records have no version yet, the model of its runs, and what the daemon that wrote it said
of them: the runs as of step 40, and the learning rates that it advised for the next losses."""
EXPECTED = json.loads((STORED / "expected.json").read_text())
NEXT_LOSSES = np.array(EXPECTED["plain"]["next_losses"])


async def record_of(stub: Any, run_id: str) -> dict[str, Any]:
    """Return a run's record and status."""
    record: dict[str, Any] = {"losses": [], "learning_rates": [], "reasons": [], "updates": []}
    async for message in stub.WatchRun(pb.WatchRunRequest(run_id=run_id), timeout=20):
        for name in ("losses", "learning_rates", "reasons"):
            record[name] += getattr(message, name)
        record["updates"] += [
            [one.step, one.alignment, one.learning_rate, one.log_change] for one in message.updates
        ]
        record["next_step"] = message.run.next_step
        record["status"] = pb.RunStatus.Name(message.run.status)
    record["losses"] = [loss if np.isfinite(loss) else None for loss in record["losses"]]
    return record


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The folder of a daemon, with a copy of the store."""
    (tmp_path / "mlrs.sqlite3").write_bytes(gzip.decompress((STORED / "mlrs.sqlite3.gz").read_bytes()))
    return tmp_path


async def test_runs_and_records_are_read_as_they_were(data_dir: Path) -> None:
    """Runs of a model, of a schedule and in meta mode have the records that they had, bit for bit."""
    async with service(data_dir, STORED / "small.safetensors") as (stub, _):
        listed = (await stub.ListRuns(pb.ListRunsRequest(), timeout=20)).runs
        assert {run.run_id for run in listed} == set(EXPECTED)
        for run_id, expected in EXPECTED.items():
            found = await record_of(stub, run_id)
            assert found == {name: value for name, value in expected.items() if name in found}


@pytest.mark.parametrize("run_id", ["plain", "meta"])
async def test_runs_go_on_as_they_would_have(data_dir: Path, run_id: str) -> None:
    """The next losses get the advice that the earlier version gave, before and after another start."""
    async with service(data_dir, STORED / "small.safetensors") as (stub, _):
        lrs = await advised(stub, run_id, NEXT_LOSSES[:5], start=40)
    async with service(data_dir, STORED / "small.safetensors") as (stub, _):
        lrs += await advised(stub, run_id, NEXT_LOSSES[5:], start=45)
        record = await record_of(stub, run_id)
    assert np.allclose(lrs, EXPECTED[run_id]["next_learning_rates"], rtol=1e-6, atol=0)
    assert record["learning_rates"][:40] == EXPECTED[run_id]["learning_rates"]
    assert record["learning_rates"][40:45] == lrs[:5]


async def test_recorded_steps_are_answered_from_old_records(data_dir: Path) -> None:
    """Steps that were answered before are answered alike from records without a version."""
    async with service(data_dir, STORED / "small.safetensors") as (stub, _):
        losses = [float("nan") if loss is None else loss for loss in EXPECTED["meta"]["losses"]]
        assert await advised(stub, "meta", losses) == EXPECTED["meta"]["learning_rates"]


async def test_runs_of_before_had_no_search(data_dir: Path) -> None:
    """Runs that were stored before there were searches have none, and those with a record get none."""
    async with service(data_dir, STORED / "small.safetensors") as (stub, _):
        for run_id in EXPECTED:
            refusal = await refused(stub.GetSearch(pb.GetSearchRequest(run_id=run_id), timeout=20))
            assert refusal.reason == "ERROR_REASON_NO_SEARCH"
            refusal = await refused(
                stub.SearchTrial(pb.SearchTrialRequest(run_id=run_id, start="s"), timeout=20)
            )
            assert refusal.reason in {"ERROR_REASON_RUN_BEGUN", "ERROR_REASON_RUN_FINISHED"}
        await create(stub, "new", horizon=400)
        search = (await stub.SearchTrial(pb.SearchTrialRequest(run_id="new", start="s"), timeout=20)).search
        assert (search.attempt, search.trial.number) == (1, 0)
