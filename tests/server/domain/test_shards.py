"""The shard of a run, from the call that opens it to the row that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlrs_server.domain.shards import SHARDS, shard_of
from mlrs_server.errors import Reason
from mlrs_server.runs.open_request import OpenRequest
from tests.server.support import LOSSES, harness, raises


def test_names_spread_over_all_shards() -> None:
    """The shard of a name is always the same, within bounds, and no shard gets much more than its part."""
    assert [shard_of(name) for name in ("a", "resnet18-cifar10", "tenant!run")] == [67, 84, 11]
    counts = np.bincount([shard_of(f"run-{index}") for index in range(100 * SHARDS)], minlength=SHARDS)
    assert len(counts) == SHARDS
    assert counts.min() > 50
    assert counts.max() < 200


async def test_runs_of_one_group_are_of_one_shard(tmp_path: Path, model_file: Path) -> None:
    """A run's shard is its group's, else its own; it is stored, and in what is flushed."""
    async with harness(tmp_path, model_file) as here:
        for name, group in (("a", "pair"), ("b", "pair"), ("c", "")):
            request = OpenRequest(run_id=name, group=group)
            handle = (await here.open_one(request)).handle
            assert (await here.open_one(OpenRequest(run_id=name))).handle == handle
            await here.follow(handle, LOSSES[:2])
            record = here.live.groups[0].records[here.row(handle)]
            assert record["shard"] == shard_of(group or name)
        found = await here.stored.find_all(["a", "b", "c"])
        shards = [found[name].shard for name in "abc"]
        assert shards == [shard_of("pair"), shard_of("pair"), shard_of("c")]


def test_a_malformed_group_is_refused() -> None:
    """A group is named as runs are; the error names the field."""
    with raises(Reason.INVALID_FIELD, field="group"):
        OpenRequest(run_id="a", group="no spaces")
