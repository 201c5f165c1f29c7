"""What the default model makes of losses that are zero or negative, such as returns with a changed sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mlrs_core.models
from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.networks.serving import policy_of
from mlrs_core.policy import Floats
from tests.core.runs import Runs

MODEL, _ = read_model(Path(mlrs_core.models.__file__).parent / "mlr-snet.safetensors")
STEPS = 200


def rates_of(losses: Floats) -> Floats:
    """Return the learning rates of a run with these losses."""
    runs = Runs(
        policy_of(MODEL.architecture, MODEL.snapshots), [RunConfig(horizon=STEPS, optimizer=Optimizer.ADAM)]
    )
    return np.array([runs.advise(step, [loss])[0] for step, loss in enumerate(losses)])


def returns(seed: int = 0) -> Floats:
    """Return the noisy returns of a training that learns: from about 20 to about 300."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, STEPS)
    mean = 20.0 + 280.0 / (1.0 + np.exp(-(np.arange(STEPS) - 100.0) / 20.0))
    return np.maximum(mean + 0.2 * mean * noise, 1.0)


def test_negative_losses_are_advised() -> None:
    """A run of negative losses has finite, positive rates, which react to what the losses do."""
    learning, idle = rates_of(-returns()), rates_of(np.full(STEPS, -20.0))
    for rates in (learning, idle):
        assert np.isfinite(rates).all()
        assert (rates > 0.0).all()
    assert not np.allclose(learning, idle, rtol=0.01)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_unit_of_the_loss_does_not_matter(sign: float) -> None:
    """Losses are measured by the size of the first one: all of them times a constant give the same rates."""
    losses = sign * returns()
    np.testing.assert_array_equal(rates_of(losses), rates_of(losses * 2.0**-7))
    np.testing.assert_allclose(rates_of(losses), rates_of(losses * 0.1), rtol=1e-3)


def test_the_zero_of_the_loss_matters() -> None:
    """A constant that is added to all losses is another loss, and gives other rates."""
    assert not np.allclose(rates_of(-returns()), rates_of(500.0 - returns()), rtol=0.01)


def test_a_first_loss_of_zero_leaves_only_signs() -> None:
    """After a first loss of 0 there is no unit: of the later losses only the sign is seen."""
    losses = -returns()
    losses[0] = 0.0
    np.testing.assert_array_equal(rates_of(losses), rates_of(np.sign(losses)))
