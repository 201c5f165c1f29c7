"""The shipped models are what their commands made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import mlrs_core
from mlrs_core.advise import step as step_of
from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import RunColumns
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import LogRecord
from mlrs_train.methods import SETTINGS, start_training

MODELS = Path(mlrs_core.__file__).parent / "models"
RECORDS = Path(__file__).parents[2] / "docs" / "models"


def rates_over(model: str, losses: npt.NDArray[np.float64], config: RunConfig) -> list[float]:
    """Return the learning rates of one run over some losses."""
    policy = read_model(MODELS / f"{model}.safetensors")[0].policy()
    columns, states, rates = RunColumns.of([config]), policy.init_state(1), []
    for step, loss in enumerate(losses):
        lrs, states = step_of(policy, states, np.array([step]), np.array([loss]), columns)
        rates.append(float(lrs[0]))
    return rates


def logged(model: str, count: int) -> list[Mapping[str, Any]]:
    """Return the first records of a shipped log."""
    lines = (RECORDS / model / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:count]]


def trained(model: str, advances: int) -> list[LogRecord]:
    """Return the records of a training's first advances, with a shipped model's settings."""
    provenance = read_model(MODELS / f"{model}.safetensors")[0].provenance
    training = start_training(SETTINGS[provenance["method"]](**provenance["settings"]))
    steps = itertools.islice(iter(training.advance, object()), advances)
    return [record for record in steps if record is not None]


def test_every_shipped_model_has_a_page() -> None:
    """A model cannot be shipped without a page and a log."""
    assert {path.stem for path in MODELS.glob("*.safetensors")} == {path.name for path in RECORDS.iterdir()}


@pytest.mark.parametrize("model", ["mlr-snet", "paper"])
def test_page_is_about_the_shipped_file(model: str) -> None:
    """The page of a model names its digest; the file fits into the package."""
    path = MODELS / f"{model}.safetensors"
    _, digest = read_model(path)
    assert digest in (RECORDS / model / "README.md").read_text()
    assert path.stat().st_size <= 200_000


def test_page_of_paper_names_its_command() -> None:
    """The page of `paper` has the command that makes it."""
    shipped, _ = read_model(MODELS / "paper.safetensors")
    command = shipped.provenance["command"].replace("--method ", "")  # an option, when it was made
    assert command in (RECORDS / "paper" / "README.md").read_text().replace("\\\n  ", "")


def test_defaults_are_the_settings_of_paper() -> None:
    """The method without settings makes the model that it made before."""
    settings = HypergradientSettings().to_json()
    assert read_model(MODELS / "paper.safetensors")[0].provenance["settings"] == settings


def test_log_of_paper_begins_as_logged() -> None:
    """A training with the settings of `paper` logs what the shipped log holds."""
    records = trained("paper", 270)
    assert len(records) == 5
    for record, line in zip(records, logged("paper", 5), strict=True):
        assert (record.task, record.step) == (line["task"], line["step"])
        # Other processors round otherwise; the losses of a training diverge with time.
        assert record.values["train_loss"] == pytest.approx(line["train_loss"], rel=1e-2)
        assert record.values["learning_rate"] == pytest.approx(line["learning_rate"], rel=1e-2)


def test_rates_of_paper_are_sane() -> None:
    """Over an ordinary run, each third has lower rates than the one before, all far from 0 and from gamma."""
    rates = rates_over("paper", np.geomspace(2.3, 0.1, 300), RunConfig(horizon=300, scale=1.0))
    thirds = [float(np.median(rates[start : start + 100])) for start in (0, 100, 200)]
    assert thirds == sorted(thirds, reverse=True)
    assert 0.01 < min(rates) < max(rates) < 0.9


QUARTERS = {
    (Optimizer.SGD, 300): (2.9, 1.8, 1.1, 0.20),
    (Optimizer.SGD, 4000): (14, 9.2, 4.9, 0.88),
    (Optimizer.MOMENTUM, 300): (2.2, 7.7, 6.1, 1.5),
    (Optimizer.MOMENTUM, 4000): (17, 24, 15, 2.1),
    (Optimizer.ADAMW, 300): (2.5, 6.3, 5.2, 1.3),
    (Optimizer.ADAMW, 4000): (23, 11, 8.8, 2.2),
}
"""The median rates of `mlr-snet` in each quarter of a smooth run, over the default one."""


@pytest.mark.parametrize(("optimizer", "horizon"), QUARTERS)
def test_rates_of_mlr_snet_are_sane(optimizer: Optimizer, horizon: int) -> None:
    """Over a smooth run rates warm up, have the shape written down, and fall at the end and at a blow-up."""
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, horizon))
    default = {Optimizer.SGD: 0.1, Optimizer.MOMENTUM: 0.01, Optimizer.ADAMW: 1e-3}[optimizer]
    config = RunConfig(horizon=horizon, optimizer=optimizer, num_classes=10)
    losses = np.geomspace(2.3, 0.3, horizon) * noise
    rates = np.array(rates_over("mlr-snet", losses, config)) / default
    assert 0.2 < rates[0] < 0.25
    medians = [float(np.median(quarter)) for quarter in np.array_split(rates, 4)]
    assert medians == pytest.approx(QUARTERS[optimizer, horizon], rel=0.1)
    assert rates[-1] < 0.02 * rates.max()
    assert (np.diff(rates[-horizon // 10 :]) <= 0).mean() > 0.9
    blown_up = np.where(np.arange(horizon) < horizon // 2, losses, 30.0)
    soon = horizon // 2 + horizon // 10
    assert rates_over("mlr-snet", blown_up, config)[soon] / default < 0.5 * rates[soon]
