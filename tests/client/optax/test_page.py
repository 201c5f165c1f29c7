"""The blocks of the page about Optax, and of the adapter's docstrings; and the example."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.support.frameworks import framework

jax = framework("jax")
optax = framework("optax")

import jax.numpy as jnp  # noqa: E402 # once it is known to be there

import mlrs  # noqa: E402
from mlrs.optax import AdvisedLR, advised, set_learning_rate  # noqa: E402
from tests.client.fake_daemon import FakeDaemon  # noqa: E402
from tests.docs.blocks import ROOT, Block  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402
from tests.support.pages import framework_blocks, run_block, served  # noqa: E402
from tests.support.trainings.optax_training import BATCHES, loss_of  # noqa: E402


@pytest.mark.parametrize("block", framework_blocks("optax"), ids=str)
def test_block(block: Block, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block runs; its losses reach the daemon, and the run ends where the block finishes it."""
    with served(daemon.target, monkeypatch):
        names = {
            "jax": jax,
            "optax": optax,
            "AdvisedLR": AdvisedLR,
            "advised": advised,
            "set_learning_rate": set_learning_rate,
            "loss_of": loss_of,
            "params": {"weights": jnp.ones(3)},
            "grads": {"weights": jnp.ones(3)},
            "batches": BATCHES[:12],
            "loss": jnp.float32(1.0),
            "step": 0,
        }
        if "run.next_lr" in block.text and "mlrs.run" not in block.text:
            names["run"] = mlrs.run("plain", horizon=10)
        run_block(block, names)
        jax.effects_barrier()
    steps = len(BATCHES[:12]) if "for " in block.text else 1
    assert {len(record.losses) for record in daemon.runs.values()} == {steps}
    assert all(record.finished == (".finish()" in block.text) for record in daemon.runs.values())


@pytest.mark.timeout(180)
def test_example(real_daemon: Daemon) -> None:
    """The example searches, trains to a lower loss, and is compiled once."""
    script = ROOT / "examples" / "train_optax.py"
    command = [sys.executable, script, "--address", real_daemon.address, "--steps", "400"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=170)
    facts = [json.loads(line) for line in ran.stdout.splitlines()]
    losses = [fact["loss"] for fact in facts if "loss" in fact]
    assert len(losses) == 5
    assert facts[-1]["test_loss"] < losses[0] / 2
    assert facts[-1]["traces"] == 1
    assert np.isfinite([fact["lr"] for fact in facts if "lr" in fact]).all()
