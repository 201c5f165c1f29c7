"""Models on fresh runs, beside default schedules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlrs_core.models.checkpoint import dump_model
from mlrs_core.models.model import Model
from mlrs_core.networks.scale import shu_gamma
from mlrs_train.evaluate import advised, cosine, main
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.methods import start_training


@pytest.fixture
def model() -> Model:
    """A small model of three snapshots."""
    training = start_training(HypergradientSettings(tasks=("blobs",), epochs=3, hidden_size=6))
    while training.steps_done < training.steps_total:
        training.advance()
    return training.model({})


def test_advice_is_the_daemons(model: Model) -> None:
    """The advised schedule scales by the authors' rule and stays within gamma."""
    gamma = shu_gamma(1.2, math.log(3))
    schedule = advised(model, horizon=30, num_classes=3)
    assert all(0 < schedule(step, 1.2) < gamma for step in range(30))


def test_cosine_falls_to_nothing() -> None:
    """The cosine starts at its base and ends near 0."""
    assert cosine(0.1, 100)(0, 1.0) == pytest.approx(0.1)
    assert cosine(0.1, 100)(99, 1.0) < 1e-4


def test_table_has_a_row_per_schedule(model: Model, tmp_path: Path) -> None:
    """The command prints a Markdown table with the model and both schedules."""
    file = tmp_path / "mine.safetensors"
    file.write_bytes(dump_model(model))
    result = CliRunner().invoke(main, [str(file), "--tasks", "blobs", "--epochs", "2", "--base-lr", "0.2"])
    assert result.exit_code == 0, result.output
    rows = [row.split("|")[2].strip() for row in result.output.splitlines()[2:]]
    assert rows == ["mine", "constant 0.2", "cosine 0.2"]
