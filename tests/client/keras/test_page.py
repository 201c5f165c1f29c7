"""The blocks of the page about Keras, and of the adapter's docstrings; and the example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.frameworks import framework

keras = framework("keras")

from mlrs.keras import AdvisedLR  # noqa: E402 # once Keras is known to be there
from tests.client.fake_daemon import FakeDaemon  # noqa: E402
from tests.docs.blocks import ROOT, Block  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402
from tests.support.pages import framework_blocks, run_block, served  # noqa: E402
from tests.support.trainings.keras_training import INPUTS, TARGETS, make_model  # noqa: E402


@pytest.mark.parametrize("block", framework_blocks("keras"), ids=str)
def test_block(block: Block, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block runs, and what it fits is advised to the end."""
    monkeypatch.chdir(tmp_path)
    data = {"x": np.tile(INPUTS, (5, 1)), "y": np.tile(TARGETS, (5, 1))}
    names = {"keras": keras, "AdvisedLR": AdvisedLR, **data}
    with served(daemon.target, monkeypatch):
        run_block(block, {**names, "model": make_model(), "resume": False})
        if "if resume" in block.text:
            (run_id,) = daemon.runs
            daemon.runs[run_id].finished = False  # as if it had been killed after its last checkpoint
            run_block(block, {**names, "model": make_model(), "resume": True})
    assert [record.finished for record in daemon.runs.values()] == [True]


@pytest.mark.timeout(180)
def test_example(real_daemon: Daemon) -> None:
    """The example searches, and trains to a lower loss."""
    script = ROOT / "examples" / "train_keras.py"
    command = [sys.executable, script, "--address", real_daemon.address, "--epochs", "10"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=170)
    began, *epochs = map(json.loads, ran.stdout.splitlines())
    assert "begins at a learning rate of" in began["found"]
    assert len(epochs) == 10
    assert epochs[-1]["val_loss"] < epochs[0]["val_loss"] / 2
    assert all(epoch["learning_rate"] > 0 for epoch in epochs)
