"""Run configs: what is refused, and how one completes another."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import MAX_HORIZON, MAX_OFFSET, Optimizer, RunConfig
from mlrs_core.errors import CoreError, InvalidFieldError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("horizon", -1),
        ("horizon", MAX_HORIZON + 1),
        ("num_classes", 0),
        ("num_classes", 1),
        ("num_classes", 2**31),
        ("snapshot", -1),
        ("snapshot", 2**31),
        ("scale", 0.0),
        ("scale", -1.0),
        ("scale", math.nan),
        ("scale", math.inf),
        ("momentum", -0.1),
        ("momentum", 1.0),
        ("momentum", math.nan),
        ("min_lr", -1e-9),
        ("min_lr", math.nan),
        ("min_lr", math.inf),
        ("max_lr", 0.0),
        ("max_lr", -1.0),
        ("max_lr", math.nan),
        ("max_lr", math.inf),
        ("lr_offset", MAX_OFFSET + 1e-9),
        ("lr_offset", -MAX_OFFSET - 1e-9),
        ("lr_offset", math.nan),
        ("lr_offset", math.inf),
    ],
)
def test_value_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    """A field out of range is refused, and the error carries its name and says the value."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: must be .*, is ") as caught:
        RunConfig(**{field: value})
    assert caught.value.field == field
    assert isinstance(caught.value, CoreError)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"horizon": 1},
        {"horizon": MAX_HORIZON},
        {"num_classes": 2},
        {"num_classes": 2**31 - 1},
        {"snapshot": 0},
        {"scale": 5e-324},
        {"scale": 1e308},
        {"momentum": 0.0},
        {"momentum": 0.999999},
        {"min_lr": 0.0},
        {"max_lr": 5e-324},
        {"min_lr": 0.1, "max_lr": 0.1},
        {"rescue": True},
        {"lr_offset": MAX_OFFSET},
        {"lr_offset": -MAX_OFFSET},
        {"lr_offset": 0.0},
    ],
)
def test_value_at_the_edge_is_taken(fields: dict[str, float]) -> None:
    """The ends of each range belong to it."""
    config = RunConfig(**fields)  # type: ignore[arg-type]
    assert config.given() == list(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "cosine"),
        ("optimizer", "sgd"),
        ("optimizer", None),
        ("momentum", "0.9"),
        ("horizon", 1.5),
        ("horizon", True),
        ("scale", "1"),
        ("min_lr", False),
        ("rescue", None),
        ("rescue", 1),
        ("lr_offset", "1"),
        ("lr_offset", True),
    ],
)
def test_value_of_a_wrong_type_is_refused_by_name(field: str, value: Any) -> None:
    """A value of another type is refused, and the error carries its name."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: must be ") as caught:
        RunConfig(**{field: value})
    assert caught.value.field == field


def test_bounds_that_cross_are_refused() -> None:
    """A lower bound above the upper one is refused."""
    with pytest.raises(InvalidFieldError, match=r"min_lr: 0\.2 is above max_lr, 0\.1"):
        RunConfig(min_lr=0.2, max_lr=0.1)


CONFIGS = st.builds(
    RunConfig,
    horizon=st.none() | st.integers(1, 100),
    num_classes=st.none() | st.integers(2, 100),
    scale=st.none() | st.floats(0.1, 1),
    snapshot=st.none() | st.integers(0, 2),
    optimizer=st.sampled_from(Optimizer),
    momentum=st.none() | st.floats(0, 0.9),
    min_lr=st.none() | st.floats(0, 0.1),
    max_lr=st.none() | st.floats(0.1, 1),
    rescue=st.booleans(),
    lr_offset=st.none() | st.floats(-20, 20),
)


@given(config=CONFIGS, other=CONFIGS)
def test_completing_fills_gaps_only(config: RunConfig, other: RunConfig) -> None:
    """A config completed by another keeps every value it has and takes every value it lacks."""
    completed = config.completed_by(other)
    for name in config.given():
        assert getattr(completed, name) == getattr(config, name)
    for name in set(other.given()) - set(config.given()):
        assert getattr(completed, name) == getattr(other, name)
    assert set(completed.given()) == set(config.given()) | set(other.given())
    assert completed.completed_by(other) == completed


def test_completing_checks_the_whole() -> None:
    """A completion whose bounds cross is refused, though each config is fine alone."""
    with pytest.raises(InvalidFieldError, match="min_lr"):
        RunConfig(min_lr=0.2).completed_by(RunConfig(max_lr=0.1))


def test_zero_is_a_value() -> None:
    """Zero is given; only None and an unsaid optimizer are not."""
    config = RunConfig(snapshot=0, momentum=0.0, min_lr=0.0, optimizer=Optimizer.UNSPECIFIED)
    assert config.given() == ["snapshot", "momentum", "min_lr"]
