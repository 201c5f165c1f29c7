"""The examples of the adapters, each run as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlrs
from tests.support.daemon import Daemon
from tests.support.frameworks import need

EXAMPLES = Path(__file__).parents[3] / "examples"
NEEDED = {
    "train_accelerate.py": ["torch", "accelerate", "sklearn"],
    "train_boosting.py": ["lightgbm", "sklearn"],
    "train_keras.py": ["keras", "jax"],
    "train_lightning.py": ["torch", "lightning", "sklearn"],
    "train_numpy.py": ["sklearn"],
    "train_optax.py": ["jax", "optax"],
    "train_reinforce.py": [],
    "train_sklearn.py": ["sklearn"],
    "train_timm.py": ["torch", "timm", "torchvision"],
    "train_torch.py": ["torch", "sklearn"],
    "train_transformers.py": ["torch", "transformers"],
}
"""What has to be installed for each."""
ARGUMENTS = {"train_numpy.py": ["--steps", "100"], "train_torch.py": ["--steps", "100"]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon."""
    with Daemon(tmp_path_factory.mktemp("daemon") / "data") as daemon:
        yield daemon


def test_every_example_of_an_adapter_is_run() -> None:
    """No example of a training is left out here."""
    assert {path.name for path in EXAMPLES.glob("train_*.py")} == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_an_example_runs(daemon: Daemon, tmp_path: Path, name: str) -> None:
    """It ends well without arguments that it needs, and its run is advised and finished."""
    for module in NEEDED[name]:
        need(module)
    variables = {"MLRS_TARGET": daemon.address, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    with mlrs.connect(daemon.address, timeout_s=20.0) as advisor:
        before = {run.id for run in advisor.runs()}
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *ARGUMENTS.get(name, [])],
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
            env={**os.environ, **variables, "KERAS_BACKEND": "jax", "HF_HUB_OFFLINE": "1"},
            cwd=tmp_path,
        )
        assert ran.returncode == 0, ran.stderr
        made = [run for run in advisor.runs() if run.id not in before]
    assert made
    assert {run.status for run in made} == {"finished"}
    assert "fallback" not in ran.stderr
