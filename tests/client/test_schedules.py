"""Schedules on the client's side: what is sent, what is refused, and the LRs without a daemon."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from mlrs import Schedule, schedules
from mlrs.errors import InvalidArgumentError
from mlrs.types import RunConfig, ScheduleKind
from mlrs.values import arguments as check
from mlrs.wire import convert
from mlrs_core import config as core
from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig as CoreConfig
from mlrs_core.config.schedule import SHAPES
from mlrs_core.policy import RunColumns
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_proto import v1 as pb
from mlrs_server.rpc.convert import config_from_proto
from tests.core.schedules.cases import LOSS_FREE, configs, follow


@given(configs(*LOSS_FREE))
def test_lrs_without_a_daemon_are_the_daemons(config: CoreConfig) -> None:
    """The closed forms give the LRs of the daemon's kernel to 1e-12, at every step and beyond the horizon."""
    spec = config.schedule
    assert spec is not None
    assert config.horizon is not None
    formula = getattr(schedules, spec.kind.spelling.replace("-", "_"))
    numbers = {name: getattr(spec, name) for name in spec.given() if name not in {"kind", "base_lr"}}
    if spec.kind is not core.ScheduleKind.CONSTANT:
        numbers["horizon"] = config.horizon
    base_lr = 0.1 if spec.base_lr is None else spec.base_lr
    steps = range(config.horizon + 5)
    lrs = [formula(step, base_lr=base_lr, **numbers) for step in steps]
    expected = follow(config, np.ones(len(steps)))
    assert lrs == pytest.approx(expected.tolist(), rel=1e-12, abs=0)


@pytest.mark.parametrize("kind", [core.ScheduleKind.COSINE, core.ScheduleKind.WSD, core.ScheduleKind.SGDR])
def test_the_last_lrs_of_a_long_run_agree_too(kind: core.ScheduleKind) -> None:
    """Client and daemon agree to 1e-12 a million steps on, where next to nothing is left of the LR."""
    horizon = 10**6
    spec = core.ScheduleSpec(kind, base_lr=0.1)
    policy, runs = schedule_policy(spec), RunColumns.of([CoreConfig(horizon=horizon, schedule=spec)] * 40)
    last = np.arange(horizon - 40, horizon)
    expected, _ = step_of(policy, policy.init_state(40), last, np.ones(40), runs)
    lrs = [getattr(schedules, kind.spelling)(int(step), base_lr=0.1, horizon=horizon) for step in last]
    assert lrs == pytest.approx(expected.tolist(), rel=1e-12, abs=0)
    assert lrs[-1] < 0.1e-5


@pytest.mark.parametrize(
    ("name", "numbers", "field"),
    [
        ("constant", {"base_lr": 0.0}, "base_lr"),
        ("constant", {"base_lr": None}, "base_lr"),
        ("constant", {"warmup": -1}, "warmup"),
        ("cosine", {"horizon": 0}, "horizon"),
        ("cosine", {"horizon": 5, "warmup": 5}, "warmup"),
        ("cosine", {"horizon": 5, "final_lr": 1.5}, "final_lr"),
        ("exponential", {}, "horizon"),
        ("exponential", {"factor": 0.0}, "factor"),
        ("multi_step", {}, "horizon"),
        ("sgdr", {}, "horizon"),
        ("sgdr", {"period": 0}, "period"),
        ("sgdr", {"period": 3, "period_mult": 0}, "period_mult"),
        ("wsd", {"horizon": 9, "cooldown_fraction": 0.0}, "cooldown_fraction"),
        ("one_cycle", {"horizon": 9, "start_division": 0.5}, "start_division"),
    ],
)
def test_bad_arguments_of_a_formula_are_named(name: str, numbers: dict[str, Any], field: str) -> None:
    """A formula refuses what is out of range, or lacks its horizon, and names the argument."""
    with pytest.raises(InvalidArgumentError) as caught:
        getattr(schedules, name)(0, **{"base_lr": 0.1, **numbers})
    assert caught.value.field == field


FORMULA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "constant": {},
    "multi_step": {"milestones": [3], "horizon": 9, "factor": 0.5},
    "exponential": {"horizon": 9, "factor": 0.5},
    "cosine": {"horizon": 9, "final_lr": 0.1},
    "linear": {"horizon": 9, "final_lr": 0.1},
    "wsd": {"horizon": 9, "final_lr": 0.1, "cooldown_fraction": 0.5},
    "one_cycle": {"horizon": 9, "peak_fraction": 0.3, "start_division": 9.0, "final_division": 9.0},
    "sgdr": {"period": 3, "period_mult": 2, "final_lr": 0.1},
}
"""Every formula with all its arguments, but `milestones`, `factor` or `period` instead of a horizon."""
IN_PLACE_OF_A_HORIZON = {"multi_step": "milestones", "exponential": "factor"}


@pytest.mark.parametrize("bad", ["1", None, True, math.nan, math.inf, -1, [1.5]], ids=repr)
@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field)
        for name, numbers in FORMULA_ARGUMENTS.items()
        for field in ("step", "base_lr", "warmup", *numbers)
    ],
)
def test_every_argument_of_a_formula_is_checked(name: str, field: str, bad: Any) -> None:
    """An argument of a wrong type, not finite or negative is refused by name, by every formula."""
    numbers = {"step": 1, "base_lr": 0.1, "warmup": 2, **FORMULA_ARGUMENTS[name]}
    assert getattr(schedules, name)(**numbers) > 0
    if field == "horizon":
        numbers.pop(IN_PLACE_OF_A_HORIZON.get(name, ""), None)
    if bad is None and field in {"milestones", "factor", "period"} and name != "multi_step":
        numbers.pop("horizon", None)
        field_at_fault = "horizon"  # the default that it stands for needs one
    elif bad is None and field == "milestones":
        numbers.pop("horizon")
        field_at_fault = "horizon"
    else:
        field_at_fault = field
    with pytest.raises(InvalidArgumentError) as caught:
        getattr(schedules, name)(**{**numbers, field: bad})
    assert caught.value.field == field_at_fault


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("peak_fraction", [0.01, 0.1, 0.3, 0.5, 1.0])
def test_short_one_cycles_are_the_daemons(horizon: int, peak_fraction: float) -> None:
    """On horizons of a few steps, where the peak is before the first step or the last one, both agree."""
    spec = core.ScheduleSpec(core.ScheduleKind.ONE_CYCLE, base_lr=0.1, peak_fraction=peak_fraction)
    expected = follow(CoreConfig(horizon=horizon, schedule=spec), np.ones(horizon + 2)).tolist()
    lrs = [
        schedules.one_cycle(step, base_lr=0.1, horizon=horizon, peak_fraction=peak_fraction)
        for step in range(horizon + 2)
    ]
    assert lrs == pytest.approx(expected, rel=1e-12, abs=0)


def test_milestones_are_a_tuple() -> None:
    """Milestones given as a list are kept as a tuple, so a schedule equals the one that comes back."""
    given = [3, 5]
    schedule = Schedule("multi-step", milestones=given)
    given.append(6)
    assert schedule == Schedule("multi-step", milestones=(3, 5))
    assert hash(schedule) == hash(Schedule("multi-step", milestones=(3, 5)))


def test_a_step_below_zero_is_none() -> None:
    """A formula refuses a step that a run could not have."""
    with pytest.raises(InvalidArgumentError, match="step"):
        schedules.cosine(-1, base_lr=0.1, horizon=10)


def test_a_kind_and_a_schedule_mean_the_same() -> None:
    """A kind with `base_lr` and `warmup` beside it is the schedule with them inside."""
    whole = check.config(policy=Schedule("cosine", base_lr=0.1, warmup=3))
    assert check.config(policy="cosine", base_lr=0.1, warmup=3) == whole
    assert check.config(policy=Schedule(ScheduleKind.COSINE, base_lr=0.1), warmup=3) == whole
    assert check.config().schedule is None


@pytest.mark.parametrize(
    ("arguments", "field", "what"),
    [
        ({"policy": "cosin"}, "policy", "constant, multi-step, .*, greedy; is str 'cosin'"),
        ({"policy": 3}, "policy", "must be a Schedule, or the kind of one"),
        ({"policy": "cosine", "model": "paper"}, "policy", "leave one of them out"),
        ({"base_lr": 0.1}, "base_lr", "name one, as with policy='cosine'"),
        ({"warmup": 1}, "warmup", "name one"),
        ({"policy": Schedule("linear", warmup=3), "warmup": 3}, "warmup", "given twice"),
        ({"policy": "cosine", "base_lr": 0.0}, "base_lr", ">= 1e-30"),
        ({"policy": "cosine", "base_lr": math.nan}, "base_lr", "finite"),
        ({"policy": "cosine", "warmup": 1.5}, "warmup", "must be an int"),
        ({"policy": Schedule("multi-step", milestones="12")}, "milestones", "list of steps"),
        ({"policy": Schedule("multi-step", milestones=[])}, "milestones", "1 to 64 steps"),
        ({"policy": Schedule("multi-step", milestones=[5, 4])}, "milestones", "must rise"),
        ({"policy": Schedule("multi-step", milestones=5)}, "milestones", "list of steps"),
        ({"policy": Schedule("multi-step", milestones=[0])}, "milestones", "1 to"),
        ({"policy": Schedule("plateau", patience=-1)}, "patience", "0 to"),
        ({"policy": Schedule("plateau", patience=2**23 + 1)}, "patience", "0 to 8388608"),
        ({"policy": Schedule("greedy", cooldown=2**23 + 1)}, "cooldown", "0 to 8388608"),
        ({"policy": Schedule("greedy", smoothing=0)}, "smoothing", "1 to"),
        ({"policy": Schedule("sgdr", period=0)}, "period", "1 to"),
        ({"policy": Schedule("sgdr", period_mult=101)}, "period_mult", "1 to 100"),
        ({"policy": Schedule("plateau", threshold=1.5)}, "threshold", ">= 0 and <= 1"),
        ({"policy": Schedule("cosine", final_lr=1.5)}, "final_lr", ">= 0 and <= 1"),
        ({"policy": Schedule("exponential", factor=0.0)}, "factor", "> 0 and <= 1"),
        ({"policy": Schedule("one-cycle", peak_fraction=0.0)}, "peak_fraction", "> 0 and <= 1"),
        ({"policy": Schedule("one-cycle", start_division=0.5)}, "start_division", ">= 1 and"),
        ({"policy": Schedule("one-cycle", final_division=1e13)}, "final_division", "<= 1e"),
        ({"policy": Schedule("wsd", cooldown_fraction="a")}, "cooldown_fraction", "real number"),
    ],
)
def test_bad_policies_are_refused_by_name(arguments: dict[str, Any], field: str, what: str) -> None:
    """What is wrong with a policy is reported before anything is sent; a wrong kind lists the known ones."""
    with pytest.raises(InvalidArgumentError, match=what) as caught:
        check.config(**arguments)
    assert caught.value.field == field


def test_a_schedule_shows_what_was_given() -> None:
    """The representation of a schedule is the call that makes it."""
    shown = repr(Schedule("sgdr", base_lr=0.1, period=10))
    assert shown == "Schedule('sgdr', base_lr=0.1, period=10)"
    assert eval(shown) == Schedule("sgdr", base_lr=0.1, period=10)  # noqa: S307 # of this very test


@given(configs(*core.ScheduleKind))
def test_schedules_survive_the_wire(config: CoreConfig) -> None:
    """A schedule comes back as it was sent, and the daemon reads the same numbers."""
    spec = config.schedule
    assert spec is not None
    numbers = {name: getattr(spec, name) for name in spec.given() if name != "kind"}
    sent = check.config(policy=Schedule(spec.kind.spelling, **numbers))
    wire = pb.RunConfig.FromString(convert.config_to_proto(sent).SerializeToString())
    assert convert.config_from_proto(wire) == sent
    assert config_from_proto(wire).schedule == spec


@pytest.mark.parametrize("kind", ScheduleKind)
def test_kinds_are_those_of_the_contract(kind: ScheduleKind) -> None:
    """Every kind has one name, and the same parameters, here, in the contract and in the core."""
    message = convert.config_to_proto(RunConfig(schedule=Schedule(kind))).schedule
    name = message.WhichOneof("kind")
    assert name == kind.replace("-", "_")
    assert set(getattr(message, name).DESCRIPTOR.fields_by_name) == set(
        SHAPES[core.ScheduleKind[name.upper()]]
    )
    assert (
        len(ScheduleKind) == len(core.ScheduleKind) == len(message.DESCRIPTOR.oneofs_by_name["kind"].fields)
    )


def test_a_parameter_of_another_kind_is_refused() -> None:
    """A parameter that a kind does not have is an error that names it, and those that the kind has."""
    schedule = Schedule("multi-step", factor=0.5, cooldown=3)
    with pytest.raises(InvalidArgumentError, match="cooldown; its own: milestones, factor") as caught:
        convert.config_to_proto(RunConfig(schedule=schedule))
    assert caught.value.field == "config.schedule.cooldown"


def test_a_kind_of_a_newer_daemon_is_shown() -> None:
    """A schedule of a kind that this version does not know is shown as one, with what all kinds have."""
    field_15_of_length_0 = bytes([15 << 3 | 2, 0])
    message = pb.Schedule.FromString(pb.Schedule(base_lr=0.5).SerializeToString() + field_15_of_length_0)
    assert convert.config_from_proto(pb.RunConfig(schedule=message)).schedule == Schedule(
        "unknown", base_lr=0.5
    )
