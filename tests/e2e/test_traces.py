"""The authors' weights, imported by the command and served by a daemon, give the authors' outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlrs_proto.v1 import advisor_pb2 as pb
from mlrs_proto.v1.advisor_pb2_grpc import AdvisorServiceStub
from tests.support.daemon import Daemon

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
EPOCHS = [1, 100, 200]

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the authors' weights and traces are not on this machine"
)


def _config(case: dict[str, Any]) -> pb.RunConfig:
    """Return the config under which a run goes through a case's snapshots."""
    snapshots = case["snapshot"]
    if len(set(snapshots)) > 1:
        return pb.RunConfig(scale=1.0, horizon=len(snapshots))
    return pb.RunConfig(scale=1.0, snapshot=EPOCHS.index(snapshots[0]))


def test_imported_weights_reproduce_the_authors_traces_through_the_daemon(tmp_path: Path) -> None:
    """With scale 1 the advice equals the authors' outputs to 1e-6, in every published case."""
    files = [str(REFERENCE / "mlr-snet-official" / f"mlr_snet {epoch}.pth") for epoch in EPOCHS]
    command = [sys.executable, "-m", "mlrs_cli", "models", "import", "--data-dir", str(tmp_path / "data")]
    command += ["--name", "official", "--gate-layout", "ifgo", *files]
    imported = subprocess.run(command, capture_output=True, text=True, check=False)
    assert imported.returncode == 0, imported.stderr
    traces = json.loads((REFERENCE / "official_traces.json").read_text(encoding="utf-8"))
    with (
        Daemon(tmp_path / "data", "--model", "official") as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = AdvisorServiceStub(channel)
        for number, case in enumerate(traces["cases"]):
            run = stub.CreateRun(pb.CreateRunRequest(run_id=f"case-{number}", config=_config(case)))
            n = len(case["losses"])
            request = pb.StreamAdviceRequest(
                run_handles=[run.run_handle] * n, steps=range(n), losses=case["losses"]
            )
            (response,) = stub.StreamAdvice(iter([request]))
            difference = np.abs(np.array(response.advice.learning_rates) - np.array(case["sigma"]))
            assert difference.max() <= 1e-6
