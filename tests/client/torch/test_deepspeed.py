"""`AdvisedLR` with DeepSpeed, with the real one, in two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.support.frameworks import framework

framework("deepspeed")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_two_ranks(daemon: FakeDaemon, tmp_path: Path, stage: int) -> None:
    """Under ZeRO, updates have the advice for the mean of all losses, also after a checkpoint, to the bit."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.support.trainings.deepspeed_rank", daemon.target, str(tmp_path), str(stage)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=380)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("rank ")]
    ranks = [
        [[float(number) for number in words[1:]] for words in lines if words[0] == rank]
        for rank in ("0", "1")
    ]
    means = [(first[0] + second[0]) / 2 for first, second in zip(*ranks, strict=True)]
    expected = [[lr, lr / 2] for lr in lr_sequence(means)]
    for updates in ranks:
        assert [update[1:] for update in updates] == [pytest.approx(lrs, rel=1e-12) for lrs in expected]
    assert [len(record.losses) for record in daemon.runs.values()] == [8, 8]
