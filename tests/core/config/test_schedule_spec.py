"""Which schedules are refused, and which are the same."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.errors import InvalidFieldError

K = ScheduleKind
WSD_DIGEST = "e0c0bffcc20a4ca6929277bf73ffbdc3711989af11f40fed9dcf9a8e44464bbe"
"""SHA-256 of {"cooldown_fraction":0.2,"final_lr":0.0,"kind":"wsd"}."""


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (K.COSINE, "base_lr", 0.0),
        (K.COSINE, "base_lr", math.nan),
        (K.COSINE, "base_lr", 1e31),
        (K.COSINE, "base_lr", 1e-31),
        (K.COSINE, "base_lr", "0.1"),
        (K.COSINE, "base_lr", True),
        (K.COSINE, "base_lr", 10**400),
        (K.COSINE, "warmup", 1.5),
        (K.PLATEAU, "patience", True),
        (K.MULTI_STEP, "milestones", [1, 2]),
        (K.MULTI_STEP, "milestones", (1.5,)),
        (K.COSINE, "warmup", -1),
        (K.COSINE, "warmup", 2**53 + 1),
        (K.COSINE, "final_lr", -0.1),
        (K.COSINE, "final_lr", 1.1),
        (K.MULTI_STEP, "milestones", ()),
        (K.MULTI_STEP, "milestones", (0,)),
        (K.MULTI_STEP, "milestones", (5, 5)),
        (K.MULTI_STEP, "milestones", (5, 4)),
        (K.MULTI_STEP, "milestones", tuple(range(1, 66))),
        (K.MULTI_STEP, "factor", 0.0),
        (K.EXPONENTIAL, "factor", 1.01),
        (K.WSD, "cooldown_fraction", 0.0),
        (K.WSD, "cooldown_fraction", 1.1),
        (K.SGDR, "period", 0),
        (K.SGDR, "period_mult", 0),
        (K.SGDR, "period_mult", 101),
        (K.ONE_CYCLE, "peak_fraction", 0.0),
        (K.ONE_CYCLE, "start_division", 0.5),
        (K.ONE_CYCLE, "final_division", math.inf),
        (K.PLATEAU, "patience", -1),
        (K.PLATEAU, "patience", 2**23 + 1),
        (K.PLATEAU, "factor", 1.0),
        (K.GREEDY, "threshold", 1.5),
        (K.GREEDY, "cooldown", -1),
        (K.GREEDY, "smoothing", 0),
    ],
)
def test_value_out_of_range_is_refused_by_name(kind: ScheduleKind, field: str, value: Any) -> None:
    """A parameter out of range is refused, and the error carries its name."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: must ") as caught:
        ScheduleSpec(kind, **{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [4, "cosine", None, True])
def test_a_kind_that_is_none_is_refused(kind: Any) -> None:
    """A kind must be a `ScheduleKind`; its number or its name is none."""
    with pytest.raises(InvalidFieldError, match=r"^kind: must be a ScheduleKind, is ") as caught:
        ScheduleSpec(kind)
    assert caught.value.field == "kind"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(K.COSINE, "factor", 0.1), (K.CONSTANT, "final_lr", 0.1), (K.PLATEAU, "milestones", (1,))],
)
def test_parameter_of_another_kind_is_refused(kind: ScheduleKind, field: str, value: Any) -> None:
    """A parameter that means nothing to the kind is refused, and the error lists those that do."""
    with pytest.raises(InvalidFieldError, match=r"no such parameter; its own: ") as caught:
        ScheduleSpec(kind, **{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "kind", [K.COSINE, K.LINEAR, K.WSD, K.ONE_CYCLE, K.MULTI_STEP, K.EXPONENTIAL, K.SGDR]
)
def test_schedule_over_the_horizon_needs_one(kind: ScheduleKind) -> None:
    """Without a horizon such a schedule is refused, and with one that the warmup fills as well."""
    with pytest.raises(InvalidFieldError, match=r"^horizon: ") as caught:
        RunConfig(schedule=ScheduleSpec(kind)).check_complete()
    assert caught.value.field == "horizon"
    with pytest.raises(InvalidFieldError) as filled:
        RunConfig(horizon=10, schedule=ScheduleSpec(kind, warmup=10)).check_complete()
    assert filled.value.field == "schedule.warmup"
    RunConfig(horizon=10, schedule=ScheduleSpec(kind, warmup=9)).check_complete()


@pytest.mark.parametrize(
    "spec",
    [
        ScheduleSpec(K.CONSTANT, warmup=5),
        ScheduleSpec(K.PLATEAU),
        ScheduleSpec(K.GREEDY),
        ScheduleSpec(K.MULTI_STEP, milestones=(3,)),
        ScheduleSpec(K.EXPONENTIAL, factor=0.9),
        ScheduleSpec(K.SGDR, period=9),
    ],
    ids=lambda spec: spec.kind.spelling,
)
def test_other_schedules_need_no_horizon(spec: ScheduleSpec) -> None:
    """A schedule that has all it needs is taken without a horizon."""
    RunConfig(schedule=spec).check_complete()


def test_numbers_of_a_run_are_not_in_the_digest() -> None:
    """Specs that differ in base LR and warmup alone, or in a default written out, have one digest."""
    bare = ScheduleSpec(K.COSINE).digest()
    assert ScheduleSpec(K.COSINE, base_lr=0.3, warmup=7).digest() == bare
    assert ScheduleSpec(K.COSINE, final_lr=0.0).digest() == bare
    others = {ScheduleSpec(kind).digest() for kind in K} | {ScheduleSpec(K.COSINE, final_lr=0.1).digest()}
    assert len(others) == len(K) + 1


def test_digest_is_for_ever() -> None:
    """A digest is what runs are stored with: it does not change from version to version."""
    assert ScheduleSpec(K.WSD).digest() == WSD_DIGEST


def test_resolving_fills_in_what_depends_on_no_run() -> None:
    """A resolved spec has its constant defaults, and leaves open what the horizon or the optimizer says."""
    resolved = ScheduleSpec(K.SGDR).resolved()
    assert (resolved.warmup, resolved.final_lr, resolved.period_mult) == (0, 0.0, 1)
    assert (resolved.base_lr, resolved.period) == (None, None)
    assert resolved.resolved() == resolved


def test_a_spec_is_completed_field_by_field() -> None:
    """What a schedule lacks is taken from another; what it has stays."""
    has = RunConfig(schedule=ScheduleSpec(K.COSINE, warmup=3))
    asked = RunConfig(horizon=9, schedule=ScheduleSpec(K.COSINE, base_lr=0.5, warmup=4))
    assert has.completed_by(asked) == RunConfig(
        horizon=9, schedule=ScheduleSpec(K.COSINE, base_lr=0.5, warmup=3)
    )


def test_values_are_named_with_their_schedule() -> None:
    """The values of a config are flat, those of its schedule under `schedule.`."""
    config = RunConfig(horizon=9, schedule=ScheduleSpec(K.COSINE, base_lr=0.5))
    assert config.values() == {"horizon": 9, "schedule.kind": K.COSINE, "schedule.base_lr": 0.5}
