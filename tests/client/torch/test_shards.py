"""Meta mode under `fully_shard`, in two real processes, against the same training in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.fake_daemon import FakeDaemon
from tests.support.trainings.fsdp import RUNS, WORLD_SIZE, trained


@pytest.mark.timeout(400)
def test_shards_give_the_alignment_of_one_process(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Alignments and weights are those of one process with all batches, whatever the order and optimizer."""
    (alone,) = trained(daemon.target, tmp_path / "alone", 1)
    first, second = trained(daemon.target, tmp_path / "shared", WORLD_SIZE)
    assert first == second
    assert len(first) == len(alone) == len(RUNS)
    for kind, order in RUNS:
        whole = daemon.runs[f"{kind}-{order}-1"].alignments
        spread = daemon.runs[f"{kind}-{order}-{WORLD_SIZE}"].alignments
        assert list(whole) == list(spread) == [1, 3]
        assert list(spread.values()) == pytest.approx(list(whole.values()), rel=1e-9)
    for weights, expected in zip(first, alone, strict=True):
        assert weights == pytest.approx(expected, rel=1e-9)
