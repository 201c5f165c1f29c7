"""What the next run of a task begins with."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.config import Measure, Optimizer
from mlrs_core.memory import Arm, Decision, Ending, Explore, Fit, PastRun, Setting, evidence_of, recall
from mlrs_core.memory.carrying import octave
from mlrs_core.memory.recall import CAREFUL_REACH, FAR_OFF, FULL_REACH, GRID, LEAST_SURPRISE
from tests.core.memory.lineages import (
    EXPLORES,
    LINEAGES,
    NETWORK,
    SETTING,
    at,
    bowl,
    expecting,
    lineage,
    past,
    runs,
    tried,
)

Bounds = tuple[float, float]
NONE, CAREFUL, FULL = Explore.NONE, Explore.CAREFUL, Explore.FULL


def decided(
    *runs: dict[str, Any], explore: Explore = NONE, setting: Setting = SETTING, **options: Any
) -> Decision:
    """Return the decision after runs, given the oldest first."""
    return recall(lineage(*runs), setting, explore, network=NETWORK, **options)


def arm_of(decision: Decision) -> Arm:
    """Return the arm of a decision that decides."""
    assert decision.recalled.decided
    assert decision.arm is not None
    return decision.arm


def rate_of(decision: Decision) -> float:
    """Return the learning rate of a decision that decides on one."""
    rate = arm_of(decision).learning_rate
    assert rate is not None
    return rate


def beyond(decision: Decision, runs: Sequence[PastRun]) -> float:
    """Return how far beyond what was tried a decision lies, in octaves."""
    arm = arm_of(decision)
    evidence = evidence_of(runs, SETTING, NETWORK)
    octaves = tried(evidence.runs, arm)
    return max(min(octaves) - at(arm), at(arm) - max(octaves), 0.0)


# ---------------------------------------------------------------------------------- beginning


@pytest.mark.parametrize("explore", Explore)
@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([], "the first run of its task with this kind of optimizer"),
        ([{"ending": Ending.UNDER_WAY}], "no run of the task"),
        ([{"ending": Ending.STOPPED}], "no run of the task"),
        ([{"ending": Ending.DIVERGED}], "no run of the task"),
        ([{"optimizer": Optimizer.SGD}], "no run of the task"),
        ([{"policy": "cosine"}], "no run of the task"),
        ([{"training_loss": None}], "no run of the task"),
    ],
)
def test_without_a_score_nothing_is_decided(runs: list[dict[str, Any]], why: str, explore: Explore) -> None:
    """Before a run of this kind of optimizer has reached its end, a run begins as a first run does."""
    decision = decided(*runs, explore=explore)
    assert (decision.arm, decision.expected, decision.recalled.decided) == (None, None, False)
    assert decision.recalled.measure is Measure.UNSPECIFIED
    assert decision.recalled.why.startswith(why)


def test_a_second_run_goes_on_from_the_first() -> None:
    """After one run that ended, the best known is what it began with, and why says so."""
    decision = decided({"searched": True})
    assert arm_of(decision) == Arm(policy="wsd", learning_rate=pytest.approx(0.01))  # type: ignore[arg-type]
    assert decision.recalled.why == "a learning rate of 0.01 (wsd schedule), the best known after 1 run"
    assert decision.recalled.measure is Measure.TRAINING_LOSS
    assert decision.expected is not None
    assert decision.expected.arm == decision.arm
    low, high = decision.recalled.expected_low, decision.recalled.expected_high
    assert low is not None
    assert high is not None
    assert low < decision.expected.low < decision.expected.value < decision.expected.high < high
    assert low <= math.exp(-LEAST_SURPRISE)
    assert high >= math.exp(LEAST_SURPRISE)


@pytest.mark.parametrize("value", ["training_loss", "validation_loss", "metric"])
def test_the_best_of_a_bowl_is_found(value: str) -> None:
    """Where runs ended best in the middle of what was tried, the run that counts gets the middle."""
    runs = [{**run, value: run["training_loss"]} for run in bowl(0.04, 0.01, 0.02, 0.04, 0.08, 0.16) * 3]
    assert rate_of(decided(*runs)) == pytest.approx(0.04, rel=2**GRID - 1)


def test_a_metric_of_which_more_is_better() -> None:
    """An accuracy is made high, and so is a metric that may be negative."""
    for share, whole in ((0.1, 1.0), (1.0, 0.0)):
        runs = [
            {**run, "metric": whole - share * run["training_loss"], "higher_is_better": True}
            for run in bowl(0.04, 0.01, 0.04, 0.16) * 3
        ]
        decision = decided(*runs)
        assert rate_of(decision) == pytest.approx(0.04, rel=2**GRID - 1)
        assert decision.recalled.measure is Measure.METRIC
        assert decision.expected is not None
        assert decision.expected.value == pytest.approx(whole - share, abs=0.05)


def test_a_diverged_run_makes_higher_rates_unlikely() -> None:
    """After a run diverged, one that may try something goes lower than it would have gone before."""
    calm = [{"learning_rate": 0.01}, {"learning_rate": 0.02, "training_loss": 0.99}]
    diverged = {"learning_rate": 0.04, "ending": Ending.DIVERGED}
    assert rate_of(decided(*calm, explore=FULL)) > 0.02
    for explore in Explore:
        assert rate_of(decided(*calm, diverged, explore=explore)) < 0.03


def test_what_a_careful_run_tries_is_probably_no_worse() -> None:
    """A careful run stays where a full one goes far, if an octave away runs ended much worse."""
    runs = bowl(0.01, 0.01) * 4 + [{"learning_rate": 0.02, "training_loss": 1.4}] * 2
    careful = decided(*runs, explore=CAREFUL)
    assert rate_of(careful) < 0.015


def test_the_network_is_chosen_where_it_ends_better() -> None:
    """An offset on the network's rates is an arm as any other, chosen if its runs end better."""
    runs = bowl(0.01, 0.01) * 4 + [{"policy": NETWORK, "training_loss": 0.7}] * 4
    arm = arm_of(decided(*runs))
    assert (arm.policy, arm.learning_rate) == (NETWORK, None)
    assert abs(arm.lr_offset) <= GRID
    assert str(arm) in ("the model", f"the model with its learning rates times 2**{arm.lr_offset:g}")
    other = recall(lineage(*runs), SETTING, NONE, network="newer@0123456789ab")
    assert arm_of(other).learning_rate is not None


# ---------------------------------------------------------------------------------- carrying


@pytest.mark.parametrize("explore", Explore)
@pytest.mark.parametrize(
    ("setting", "factor"),
    [
        (replace(SETTING, horizon=8000), 8**-0.32),
        (replace(SETTING, batch_size=256), 2.0),
        (replace(SETTING, batch_size=None), 1.0),
        (replace(SETTING, optimizer=Optimizer.ADAMW), 1.0),
    ],
)
def test_a_rate_is_carried_to_another_setting(setting: Setting, factor: float, explore: Explore) -> None:
    """The first run of another horizon or batch size gets the best known, carried by the known factors."""
    decision = decided({"searched": True}, explore=explore, setting=setting)
    assert rate_of(decision) == pytest.approx(0.01 * factor)
    assert decision.recalled.why.endswith("after 1 run with another horizon, batch size or optimizer")


def test_nobody_knows_how_well_a_carried_run_ends() -> None:
    """Of the first run of another setting is expected only that it does not end far worse."""
    recalled = decided({"searched": True}, setting=replace(SETTING, horizon=8000)).recalled
    assert not recalled.expected_low
    assert recalled.expected_high == pytest.approx(math.exp(FAR_OFF), rel=0.1)
    above = decided(
        {"metric": 0.9, "higher_is_better": True, "searched": True}, setting=replace(SETTING, horizon=8000)
    ).recalled
    assert above.expected_high in (None, 1.0)
    assert above.expected_low == pytest.approx(1.02 - 0.12 * math.exp(FAR_OFF), abs=0.05)


# --------------------------------------------------------------------------------- surprises


@pytest.mark.parametrize("explore", [CAREFUL, FULL])
def test_one_surprise_asks_for_a_search(explore: Explore) -> None:
    """After a run that ended as not expected, one that may explore begins as a first run; why names it."""
    runs: list[dict[str, Any]] = [{}, {}, {"training_loss": 9.0, "recalled": expecting(0.9, 1.1)}]
    decision = decided(*runs, explore=explore)
    assert decision.arm is None
    assert not decision.recalled.decided
    assert decision.recalled.why.startswith("run run-2 ended far from what was expected")
    assert decision.recalled.measure is Measure.TRAINING_LOSS
    assert arm_of(decided(*runs, explore=NONE)).learning_rate == pytest.approx(0.01)


def test_two_surprises_in_a_row_drop_what_came_before() -> None:
    """When the run after it is a surprise, too, the best known is that of these two, and nothing older."""
    old = bowl(0.01, 0.005, 0.01, 0.02) * 3
    new = [{"learning_rate": 0.16, "training_loss": 9.0, "recalled": expecting(0.9, 1.1), "searched": True}]
    assert rate_of(decided(*old)) == pytest.approx(0.01, rel=0.2)
    assert rate_of(decided(*old, *new * 2)) == pytest.approx(0.16, rel=0.01)
    alone = decided(*new * 2)
    assert decided(*old, *new * 2) == replace(
        alone, recalled=replace(alone.recalled, why=decided(*old, *new * 2).recalled.why)
    )


# ------------------------------------------------------------------------------- side by side


@pytest.mark.parametrize("explore", [CAREFUL, FULL])
def test_runs_side_by_side_get_different_arms(explore: Explore) -> None:
    """Each of several runs that are under way together tries something else, until nothing is worth it."""
    past_runs = lineage({"searched": True}, {"learning_rate": 0.012})
    arms = list[Arm]()
    for number in range(4):
        arm = arm_of(recall(past_runs, SETTING, explore, network=NETWORK))
        arms.append(arm)
        going = replace(past(100 + number), ending=Ending.UNDER_WAY, training_loss=None)
        past_runs.insert(0, replace(going, policy=arm.policy, learning_rate=arm.learning_rate))
    assert len({str(arm) for arm in arms}) == len(arms)


# -------------------------------------------------------------------------------- odd losses


@pytest.mark.parametrize(
    "values",
    [
        [{"training_loss": 0.0}] * 3,
        [{"training_loss": 0.0}, {"training_loss": 1.0}],
        [{"training_loss": -1.0}, {"training_loss": -3.0, "learning_rate": 0.02}],
        [{"training_loss": -1.0}] * 2,
        [{"training_loss": 1e300}, {"training_loss": 1.0}],
        [{"training_loss": 5e-324}],
        [{"metric": 1.0, "higher_is_better": True}] * 2,
        [{"metric": -0.0, "higher_is_better": True}, {"metric": 0.0, "higher_is_better": True}],
        [{"metric": -1e300, "higher_is_better": True}, {"metric": 1e300, "higher_is_better": True}],
    ],
)
@pytest.mark.parametrize("explore", Explore)
def test_odd_losses_lead_to_numbers(values: list[dict[str, Any]], explore: Explore) -> None:
    """Losses of 0, negative and huge ones, and perfect metrics give a rate, and no NaN anywhere."""
    decision = decided(*values, explore=explore)
    assert 1e-3 < rate_of(decision) < 0.1
    made = decision.recalled
    assert decision.expected is not None
    numbers = [decision.expected.value, decision.expected.low, decision.expected.high]
    numbers += [one for one in (made.expected_low, made.expected_high) if one is not None]
    assert not any(map(math.isnan, numbers))


# -------------------------------------------------------------------------------- properties


@given(LINEAGES, EXPLORES)
def test_a_decision_is_a_pure_function(past_runs: list[PastRun], explore: Explore) -> None:
    """The same runs give the same decision to the bit, and are as they were afterwards."""
    before = copy.deepcopy(past_runs)
    first = recall(past_runs, SETTING, explore, network=NETWORK)
    recall(past_runs[::-1], SETTING, explore, network=NETWORK)  # nothing is left of another decision
    assert past_runs == before
    assert repr(recall(before, SETTING, explore, network=NETWORK)) == repr(first)
    assert (first.arm is not None) == first.recalled.decided


@given(LINEAGES, st.lists(runs(), max_size=3), EXPLORES)
def test_runs_of_another_family_change_no_decision(
    past_runs: list[PastRun], others: list[PastRun], explore: Explore
) -> None:
    """What runs under another kind of optimizer have shown plays no part."""
    foreign = [replace(run, optimizer=Optimizer.SGD) for run in others]
    alone = recall(past_runs, SETTING, explore, network=NETWORK)
    mixed = recall([*foreign, *past_runs], SETTING, explore, network=NETWORK)
    assert (mixed.arm, mixed.expected) == (alone.arm, alone.expected)
    if alone.recalled.measure is not Measure.UNSPECIFIED:
        assert mixed == alone


@given(LINEAGES)
def test_a_careful_run_goes_at_most_an_octave_beyond(past_runs: list[PastRun]) -> None:
    """A careful run lies no further than an octave beyond what was tried."""
    decision = recall(past_runs, SETTING, CAREFUL, network=NETWORK)
    if decision.arm is not None:
        assert beyond(decision, past_runs) <= CAREFUL_REACH + 1e-9


@given(st.lists(runs(at_home=True), max_size=8))
def test_a_full_run_goes_at_most_two_octaves_from_the_best(past_runs: list[PastRun]) -> None:
    """A run that may try anything stays within two octaves of the run of its kind that ended best."""
    decision = recall(past_runs, SETTING, FULL, network=NETWORK)
    if decision.arm is None:
        return
    evidence = evidence_of(past_runs, SETTING, NETWORK)
    fit = Fit(evidence)
    if decision.arm == fit.arm(fit.best):
        return
    same = [
        (score, octave_of(run))
        for score, run in zip(evidence.scores, evidence.runs, strict=True)
        if (run.learning_rate is None) == (decision.arm.learning_rate is None)
    ]
    least = min(score for score, _ in same)
    apart = [abs(at(decision.arm) - octave_) for score, octave_ in same if score == least]
    assert min(apart) <= FULL_REACH + 1e-9


def octave_of(run: PastRun) -> float:
    """Return the octave of a run's learning rate, or its offset."""
    return run.lr_offset if run.learning_rate is None else octave(run.learning_rate, run.setting, SETTING)


@given(LINEAGES)
def test_a_run_that_counts_stays_within_what_was_tried(past_runs: list[PastRun]) -> None:
    """With `Explore.NONE` an arm lies between those that were tried, or next to them on the grid."""
    decision = recall(past_runs, SETTING, NONE, network=NETWORK)
    if decision.arm is not None:
        assert beyond(decision, past_runs) <= GRID / 2 + 1e-9


@given(
    LINEAGES,
    EXPLORES,
    st.tuples(st.floats(1e-5, 1.0), st.floats(1.0, 100.0)).map(lambda pair: (pair[0], pair[0] * pair[1])),
)
def test_a_decision_is_within_bounds(past_runs: list[PastRun], explore: Explore, bounds: Bounds) -> None:
    """A learning rate is within its bounds, however far from these the others were."""
    decision = recall(past_runs, SETTING, explore, network=NETWORK, bounds=bounds)
    if decision.arm is not None and decision.arm.learning_rate is not None:
        assert bounds[0] * (1 - 1e-9) <= decision.arm.learning_rate <= bounds[1] * (1 + 1e-9)


@given(st.lists(runs(at_home=True), min_size=1, max_size=8), EXPLORES)
def test_more_runs_under_way_take_no_arm_away(past_runs: list[PastRun], explore: Explore) -> None:
    """A run under way by itself decides nothing: what is known is what runs that ended have shown."""
    going = [replace(run, ending=Ending.UNDER_WAY) for run in past_runs]
    decision = recall(going, SETTING, explore, network=NETWORK)
    assert decision.arm is None
    assert decision.recalled.measure is Measure.UNSPECIFIED


@given(LINEAGES)
def test_the_curve_has_the_best_in_it(past_runs: list[PastRun]) -> None:
    """What is expected is in order for each arm of the curve, and the best known arm is one of them."""
    evidence = evidence_of(past_runs, SETTING, NETWORK)
    if not evidence.has_scores:
        return
    fit = Fit(evidence)
    curve = fit.curve()
    assert fit.expected(fit.best) in curve
    assert all(point.low <= point.value <= point.high for point in curve)
    assert np.isfinite([at(point.arm) for point in curve]).all()
