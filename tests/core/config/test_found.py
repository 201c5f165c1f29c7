"""What a search found, and the config of a run that begins with it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import FoundRate, MetaConfig, Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.errors import InvalidFieldError
from mlrs_core.policy import Policy
from mlrs_core.schedules.kernel import schedule_policy
from tests.core.networks.families import SMALL, label, random_model
from tests.core.runs import Runs
from tests.core.schedules.cases import configs

FOUND = FoundRate(learning_rate=0.02, octaves=1.5, steps=32)
FOUNDS = st.builds(
    FoundRate,
    learning_rate=st.floats(MIN_BASE_LR, MAX_BASE_LR),
    octaves=st.floats(0, 100),
    steps=st.integers(0, 300),
    charged=st.booleans(),
)
LOSSES = np.where(np.arange(24) % 7 == 5, np.nan, np.random.default_rng(3).exponential(2.0, 24))


def advice(policy: Policy, config: RunConfig) -> bytes:
    """Return the learning rates that a run gets for some losses, as bytes."""
    runs = Runs(policy, [config])
    return np.concatenate([runs.advise(step, [loss]).copy() for step, loss in enumerate(LOSSES)]).tobytes()


def written_out(config: RunConfig) -> RunConfig:
    """Return the config that a user would write to begin with what was found."""
    found = config.found
    assert found is not None
    changed: dict[str, Any] = {"found": None, "initial_lr": found.learning_rate}
    if found.charged and config.horizon is not None:
        changed["horizon"] = max(config.horizon - found.steps, 1)
    if config.schedule is not None:
        changed["schedule"] = replace(config.schedule, base_lr=found.learning_rate)
    return replace(config, **changed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("octaves", -0.1),
        ("octaves", math.nan),
        ("octaves", math.inf),
        ("steps", -1),
        ("steps", 2**53 + 1),
        ("steps", 1.5),
    ],
)
def test_value_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    """A field out of range is refused, and the error names it."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: ") as caught:
        replace(FOUND, **{field: value})
    assert caught.value.field == field


def test_what_was_found_is_of_its_type() -> None:
    """A config takes what a search found, and nothing else in its place."""
    with pytest.raises(InvalidFieldError, match=r"^found: must be a FoundRate"):
        RunConfig(found=0.02)  # type: ignore[arg-type]


def test_a_config_is_as_it_is_without_a_search() -> None:
    """A config without a search is itself after one."""
    config = RunConfig(horizon=100, initial_lr=0.3, schedule=ScheduleSpec(ScheduleKind.COSINE, base_lr=0.1))
    assert config.after_search() is config


@pytest.mark.parametrize("initial_lr", [None, 0.3])
def test_what_was_found_stands_for_the_initial_lr(initial_lr: float | None) -> None:
    """The learning rate that was found replaces the one that was given, and the rest stays."""
    config = RunConfig(horizon=100, optimizer=Optimizer.ADAM, max_lr=1.0, meta=MetaConfig(every=3))
    after = replace(config, initial_lr=initial_lr, found=FOUND).after_search()
    assert after == replace(config, initial_lr=0.02)
    assert after.after_search() is after


@pytest.mark.parametrize("base_lr", [None, 0.5])
def test_what_was_found_stands_for_the_base_lr(base_lr: float | None) -> None:
    """A schedule begins at the learning rate that was found, and keeps its shape and its warmup."""
    spec = ScheduleSpec(ScheduleKind.WSD, base_lr=base_lr, warmup=5, cooldown_fraction=0.3)
    after = RunConfig(horizon=100, schedule=spec, found=FOUND).after_search()
    assert after.schedule == replace(spec, base_lr=0.02)
    assert after.horizon == 100


@pytest.mark.parametrize(
    ("horizon", "charged", "after"),
    [(100, False, 100), (100, True, 68), (33, True, 1), (32, True, 1), (10, True, 1), (None, True, None)],
)
def test_charged_steps_end_the_horizon_earlier(
    horizon: int | None, after: int | None, *, charged: bool
) -> None:
    """The horizon ends earlier by the steps of the trials if these are charged; a step is always left."""
    config = RunConfig(horizon=horizon, found=replace(FOUND, charged=charged))
    assert config.after_search().horizon == after


def test_what_was_found_survives_completion() -> None:
    """A config that a search has decided keeps that when it is completed, and counts it as given."""
    config = RunConfig(found=FOUND)
    assert config.given() == ["found"]
    completed = config.completed_by(RunConfig(horizon=50, num_classes=10))
    assert completed == RunConfig(horizon=50, num_classes=10, found=FOUND)
    assert completed.resolved().found == FOUND


@pytest.mark.parametrize("spec", [spec for spec in SMALL if not spec.begins_at_start], ids=label)
@given(found=FOUNDS, horizon=st.none() | st.integers(1, 40), initial_lr=st.none() | st.floats(1e-4, 10))
def test_a_network_advises_what_was_written_out(
    spec: Any, found: FoundRate, horizon: int | None, initial_lr: float | None
) -> None:
    """A network advises a run after a search as one that was given the learning rate and the horizon."""
    policy = random_model(spec).policy()
    config = RunConfig(horizon=horizon, initial_lr=initial_lr, optimizer=Optimizer.MOMENTUM, found=found)
    assert advice(policy, config) == advice(policy, written_out(config))


@pytest.mark.parametrize("spec", [spec for spec in SMALL if spec.begins_at_start], ids=label)
def test_a_network_may_see_that_there_was_a_search(spec: Any) -> None:
    """A network that begins at its start trusts one that was found otherwise than one that was given."""
    policy = random_model(spec).policy()
    config = RunConfig(horizon=40, optimizer=Optimizer.MOMENTUM, found=FOUND)
    searched, given_alone = (np.frombuffer(advice(policy, one)) for one in (config, written_out(config)))
    assert searched[0] == pytest.approx(given_alone[0], rel=2.0)
    assert not np.array_equal(searched, given_alone)


@given(found=FOUNDS, config=configs(*ScheduleKind))
def test_a_schedule_advises_what_was_written_out(found: FoundRate, config: RunConfig) -> None:
    """A schedule advises a run after a search as one that was given the base LR and the horizon."""
    assert config.schedule is not None
    policy, config = schedule_policy(config.schedule), replace(config, found=found)
    assert advice(policy, config) == advice(policy, written_out(config))


@given(found=FOUNDS, config=configs(*ScheduleKind))
def test_a_schedule_after_a_search_advises_usable_rates(found: FoundRate, config: RunConfig) -> None:
    """Even where charged steps leave less than the warmup, learning rates are finite and not negative."""
    assert config.schedule is not None
    lrs = np.frombuffer(advice(schedule_policy(config.schedule), replace(config, found=found)))
    assert (np.isfinite(lrs) & (lrs >= 0.0)).all()
