"""Learning rates on one axis, whatever the momentum, the horizon and the batch size of their runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import Optimizer
from mlrs_core.memory.carrying import Setting, octave, rate

SETTINGS = st.builds(
    Setting,
    optimizer=st.sampled_from(Optimizer),
    momentum=st.none() | st.floats(0.0, 0.999999),
    horizon=st.integers(1, 2**53),
    batch_size=st.none() | st.integers(1, 2**53),
)
RATES = st.floats(1e-30, 1e30)
SGD = Setting(optimizer=Optimizer.SGD, momentum=None, horizon=1000, batch_size=64)
ADAM = replace(SGD, optimizer=Optimizer.ADAM)


def carried(learning_rate: float, of: Setting, at: Setting) -> float:
    """Return a learning rate of one setting at another."""
    return rate(octave(learning_rate, of, at), at)


@given(learning_rate=RATES, setting=SETTINGS)
def test_octave_and_rate_are_inverse(learning_rate: float, setting: Setting) -> None:
    """A learning rate that is carried to its own setting is itself."""
    assert carried(learning_rate, setting, setting) == pytest.approx(learning_rate, rel=1e-9)


@given(learning_rate=RATES, of=SETTINGS, at=SETTINGS, factor=st.floats(1.001, 1e3))
def test_a_higher_rate_lies_higher(learning_rate: float, of: Setting, at: Setting, factor: float) -> None:
    """The order of learning rates, and their ratio, stay whatever they are carried to."""
    low, high = octave(learning_rate, of, at), octave(factor * learning_rate, of, at)
    assert high - low == pytest.approx(math.log2(factor), abs=1e-9)
    assert rate(high, at) / rate(low, at) == pytest.approx(factor, rel=1e-9)


@given(learning_rate=RATES, of=SETTINGS, at=SETTINGS)
def test_a_rate_that_is_carried_there_and_back_is_itself(
    learning_rate: float, of: Setting, at: Setting
) -> None:
    """Within a family, carrying to another setting and back changes nothing."""
    at = replace(at, optimizer=of.optimizer)
    assert carried(carried(learning_rate, of, at), at, of) == pytest.approx(learning_rate, rel=1e-6)


@pytest.mark.parametrize("setting", [SGD, ADAM])
def test_a_longer_run_has_a_lower_rate(setting: Setting) -> None:
    """A rate goes with the horizon to the power of -0.32 (Bjorck et al. 2024)."""
    assert carried(0.1, setting, replace(setting, horizon=8000)) == pytest.approx(0.1 * 8**-0.32)


@pytest.mark.parametrize(
    ("setting", "batch_size", "factor"),
    [
        (ADAM, 64 * 16, 4.0),
        (ADAM, 4, 0.25),
        (SGD, 128, 2.0),
        (SGD, 256, 4.0),
        (SGD, 64 * 16, 4.0),
        (SGD, 32, 0.5),
        (SGD, 1, 0.25),
        (replace(SGD, optimizer=Optimizer.OTHER), 64 * 16, 4.0),
        (ADAM, None, 1.0),
        (SGD, None, 1.0),
    ],
)
def test_a_rate_grows_with_the_batch(setting: Setting, batch_size: int | None, factor: float) -> None:
    """It goes with the root of the batch size; with SGD in proportion to it, up to a factor of four."""
    assert carried(0.1, setting, replace(setting, batch_size=batch_size)) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("optimizer", "momentum", "factor"),
    [
        (Optimizer.MOMENTUM, 0.9, 0.1),
        (Optimizer.MOMENTUM, None, 0.1),
        (Optimizer.NESTEROV, 0.5, 0.5),
        (Optimizer.MOMENTUM, 0.0, 1.0),
        (Optimizer.SGD, 0.9, 1.0),
    ],
)
def test_momentum_makes_steps_longer(optimizer: Optimizer, momentum: float | None, factor: float) -> None:
    """With momentum, a rate is lower by 1 - momentum than that of plain SGD; plain SGD has none."""
    assert carried(0.1, SGD, replace(SGD, optimizer=optimizer, momentum=momentum)) == pytest.approx(
        0.1 * factor
    )


def test_families_of_optimizers() -> None:
    """SGD with and without momentum is a family, so are Adam and AdamW, and others are one each."""
    families = [replace(SGD, optimizer=optimizer).family for optimizer in Optimizer]
    assert families == ["unspecified", "sgd", "sgd", "sgd", "adam", "adam", "other"]
