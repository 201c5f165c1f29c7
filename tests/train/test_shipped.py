"""The shipped model `paper` is what its command made."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import mlrs_core
from mlrs_core.checkpoint import read_model
from mlrs_core.config import RunConfig
from mlrs_core.policy import RunColumns
from mlrs_train.hypergradient.settings import HypergradientSettings

MODEL = Path(mlrs_core.__file__).parent / "models" / "paper.safetensors"
RECORDS = Path(__file__).parents[2] / "docs" / "models" / "paper"


def test_page_is_about_the_shipped_file() -> None:
    """The page of the model names its digest and its command; the file fits into the package."""
    model, digest = read_model(MODEL)
    page = (RECORDS / "README.md").read_text()
    assert digest in page
    assert model.provenance["command"] in page.replace("\\\n  ", "")
    assert MODEL.stat().st_size <= 200_000


def test_settings_are_the_defaults() -> None:
    """`mlrs train` without settings makes this model."""
    assert read_model(MODEL)[0].provenance["settings"] == HypergradientSettings().to_json()


def test_log_begins_as_logged() -> None:
    """A training with the model's settings logs what the shipped log holds."""
    settings = HypergradientSettings(**read_model(MODEL)[0].provenance["settings"])
    training = settings.start()
    lines = [json.loads(line) for line in (RECORDS / "log.jsonl").read_text().splitlines()]
    steps = itertools.islice(iter(training.advance, object()), 270)
    records = [record for record in steps if record is not None]
    assert len(records) == 5
    for record, line in zip(records, lines, strict=False):
        assert (record.task, record.step) == (line["task"], line["step"])
        # Other processors round otherwise; the losses of a training drift apart with time.
        assert record.values["train_loss"] == pytest.approx(line["train_loss"], rel=1e-2)
        assert record.values["learning_rate"] == pytest.approx(line["learning_rate"], rel=1e-2)


def test_rates_are_sane() -> None:
    """Over a usual run, each third has lower rates than the one before, all far from 0 and from gamma."""
    policy = read_model(MODEL)[0].policy()
    columns = RunColumns.of([RunConfig(horizon=300, scale=1.0)])
    state = policy.init_state(1)
    rates = []
    for step, loss in enumerate(np.geomspace(2.3, 0.1, 300)):
        lr, state = policy.step(state, np.array([step]), np.array([loss]), columns)
        rates.append(float(lr[0]))
    thirds = [float(np.median(rates[start : start + 100])) for start in (0, 100, 200)]
    assert thirds == sorted(thirds, reverse=True)
    assert 0.01 < min(rates) < max(rates) < 0.9
