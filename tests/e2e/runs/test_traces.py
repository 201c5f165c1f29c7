"""Weights under the authors' names, imported by the command and served, give the outputs of the paper."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from tests.core.networks.paper_oracle import FILE
from tests.support.daemon import Daemon

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
EPOCHS = [1, 100, 200]
TRACES: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in TRACES["cases"] if "weights" in case}


def _import(data_dir: Path, gate_layout: str, files: Sequence[Path]) -> None:
    """Have the command import weights as the model `imported`."""
    command = [sys.executable, "-m", "mlrs_cli", "models", "import", "--data-dir", str(data_dir)]
    command += ["--name", "imported", "--gate-layout", gate_layout, *map(str, files)]
    imported = subprocess.run(command, capture_output=True, text=True, check=False)
    assert imported.returncode == 0, imported.stderr


def _advised(stub: Any, run_id: str, config: pb.RunConfig, losses: list[float]) -> np.ndarray:
    """Return the learning rates of a run over some losses."""
    run = stub.OpenRun(pb.OpenRunRequest(run_id=run_id, config=config))
    n = len(losses)
    request = pb.StreamAdviceRequest(
        observations=pb.Observations(run_handles=[run.run_handle] * n, steps=range(n), losses=losses)
    )
    (response,) = stub.StreamAdvice(iter([request]))
    return np.array(response.advice.learning_rates)


@pytest.mark.parametrize(
    "case",  # a daemon each, so all but one are among the slow tests
    [
        pytest.param(case, id=name, marks=[] if number == 0 else pytest.mark.slow)
        for number, (name, case) in enumerate(CASES.items())
    ],
)
def test_imported_weights_give_the_papers_outputs_through_the_daemon(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    """Under scale 1 the advice is sigma of our oracle of the paper to 1e-6, and with gamma its rate."""
    files = []
    for number, weights in enumerate(case["weights"]):
        over = TRACES["weights_over"]
        tensors = {name: torch.tensor(rows, dtype=torch.float32) / over for name, rows in weights.items()}
        files.append(tmp_path / f"{number}.pth")
        torch.save(tensors, files[-1])
    _import(tmp_path / "data", case["gate_layout"], files)
    known = {"horizon": TRACES["horizon"], "num_classes": TRACES["num_classes"]}
    with (
        Daemon(tmp_path / "data", "--model", "imported") as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = AdvisorServiceStub(channel)
        for name, config in (
            ("sigma", pb.RunConfig(scale=1.0, **known)),
            ("learning_rate", pb.RunConfig(**known)),
        ):
            rates = _advised(stub, name, config, case["losses"])
            np.testing.assert_allclose(rates, case[name], rtol=0, atol=1e-6)


def _config(case: dict[str, Any]) -> pb.RunConfig:
    """Return the config under which a run goes through the snapshots of one of the authors' cases."""
    snapshots = case["snapshot"]
    if len(set(snapshots)) > 1:
        return pb.RunConfig(scale=1.0, horizon=len(snapshots))
    return pb.RunConfig(scale=1.0, snapshot=EPOCHS.index(snapshots[0]))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the authors' weights and traces are not on this machine")
def test_imported_weights_reproduce_the_authors_traces_through_the_daemon(tmp_path: Path) -> None:
    """With scale 1 the advice equals the authors' outputs to 1e-6, in every published case."""
    files = [REFERENCE / "mlr-snet-official" / f"mlr_snet {epoch}.pth" for epoch in EPOCHS]
    _import(tmp_path / "data", "ifgo", files)
    traces = json.loads((REFERENCE / "official_traces.json").read_text(encoding="utf-8"))
    with (
        Daemon(tmp_path / "data", "--model", "imported") as daemon,
        grpc.insecure_channel(daemon.address) as channel,
    ):
        stub = AdvisorServiceStub(channel)
        for number, case in enumerate(traces["cases"]):
            rates = _advised(stub, f"case-{number}", _config(case), case["losses"])
            np.testing.assert_allclose(rates, case["sigma"], rtol=0, atol=1e-6)
