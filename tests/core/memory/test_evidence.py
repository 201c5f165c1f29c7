"""Which past runs count for a new one, by which measure, and as what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from mlrs_core.config import Measure, Optimizer
from mlrs_core.memory import MOST, Ending, PastRun, evidence_of
from mlrs_core.memory.evidence import CARRIED, HALF_LIFE, MOST_UNDER_WAY, SAYING, Evidence
from mlrs_core.memory.scores import FEW
from mlrs_core.memory.surface import WORST
from tests.core.memory.lineages import LINEAGES, NETWORK, SETTING, expecting, lineage

SURPRISED = {"recalled": expecting(5.0, 6.0)}
"""A run that ended at another loss than expected."""
UNDECIDED = {"recalled": replace(expecting(5.0, 6.0), decided=False)}
"""Such a run for which nothing was decided, as after a surprise."""


def evidence(*runs: dict[str, Any]) -> Evidence:
    """Return the evidence of runs, given the oldest first."""
    return evidence_of(lineage(*runs), SETTING, NETWORK)


def ids(runs: Sequence[PastRun]) -> list[str]:
    """Return the ids of runs."""
    return [run.run_id for run in runs]


def test_no_run_is_no_evidence() -> None:
    """Without past runs nothing has a score, is at home, or is a surprise."""
    none = evidence()
    assert not none.has_scores
    assert not none.is_at_home
    assert (none.runs, none.under_way, none.surprise) == ((), (), None)


def test_the_runs_that_count() -> None:
    """Runs that reached their end or diverged count, the oldest first; those under way are beside them."""
    made = evidence(
        {"ending": Ending.DIVERGED},
        {"ending": Ending.STOPPED},
        {"ending": Ending.UNDER_WAY},
        {},
        {"policy": "cosine"},
        {"policy": NETWORK},
        {"policy": "other@0123456789ab"},
        {"optimizer": Optimizer.SGD},
        {"optimizer": Optimizer.ADAMW, "policy": "linear"},
        {"training_loss": None},
    )
    assert ids(made.runs) == ["run-0", "run-3", "run-5", "run-8"]
    assert ids(made.under_way) == ["run-2"]
    assert made.measure is Measure.TRAINING_LOSS
    assert made.is_at_home


def test_only_the_newest_runs_count() -> None:
    """Beyond a number of runs that ended, and of runs under way, the older ones count no more."""
    made = evidence(*[{"ending": Ending.UNDER_WAY if index % 2 else Ending.REACHED} for index in range(99)])
    assert (len(made.runs), len(made.under_way)) == (MOST, MOST_UNDER_WAY)
    assert made.under_way[-1].run_id == "run-97"
    assert made.runs[-1].run_id == "run-98"


@pytest.mark.parametrize(
    ("runs", "measure", "counting"),
    [
        ([{}, {"metric": 0.5}], Measure.METRIC, ["run-1"]),
        ([{"metric": 0.5}, {}], Measure.METRIC, ["run-0"]),
        ([{"metric": 0.5}, *[{}] * SAYING], Measure.TRAINING_LOSS, [f"run-{n}" for n in range(SAYING + 1)]),
        ([{"metric": 0.5}, {"validation_loss": 2.0}], Measure.METRIC, ["run-0"]),
        ([{}, {"validation_loss": 2.0}], Measure.VALIDATION_LOSS, ["run-1"]),
        ([{"metric": 0.5}, {"ending": Ending.DIVERGED}], Measure.METRIC, ["run-0", "run-1"]),
        ([{"metric": 0.5}, {"metric": 0.5, "higher_is_better": True}], Measure.METRIC, ["run-1"]),
        ([{"higher_is_better": True}, {}], Measure.TRAINING_LOSS, ["run-0", "run-1"]),
        ([{"metric": 0.5, "ending": Ending.STOPPED}, {}], Measure.TRAINING_LOSS, ["run-1"]),
    ],
)
def test_measures_are_never_mixed(runs: list[dict[str, Any]], measure: Measure, counting: list[str]) -> None:
    """Runs count by the best measure of the newest few, and those without it do not."""
    made = evidence(*runs)
    assert made.measure is measure
    assert ids(made.runs) == counting


@pytest.mark.parametrize(
    ("value", "higher", "better"),
    [("metric", True, 0.9), ("metric", False, 0.1), ("training_loss", False, 0.1)],
)
def test_a_score_is_how_much_worse_than_the_best(value: str, better: float, *, higher: bool) -> None:
    """The best run has the score 0, others differ by shares, up to a most, which diverged runs have."""
    worse = 1 + FEW - 1.1 * (1 + FEW - better) if higher else 1.1 * better
    made = evidence(
        *({value: one, "higher_is_better": higher} for one in (worse, better, 1e-9 if higher else 900.0)),
        {"ending": Ending.DIVERGED, "higher_is_better": higher},
    )
    assert made.scores == pytest.approx([math.log(1.1), 0.0, WORST, WORST])


def test_scores_of_other_settings_are_against_their_own_best() -> None:
    """How a run of another horizon ended is compared with the best of that horizon."""
    made = evidence({"horizon": 10, "training_loss": 8.0}, {"horizon": 10, "training_loss": 8.8}, {})
    assert made.scores == pytest.approx([0.0, math.log(1.1), 0.0])
    assert set(made.lowest.values()) == {math.log(8.0), 0.0}


def test_older_runs_and_carried_ones_count_less() -> None:
    """The weight of a run halves by runs that came later, and is a share of it for another setting."""
    made = evidence({}, {"batch_size": 128}, {})
    half = 0.5 ** (1 / HALF_LIFE)
    assert made.weights() == pytest.approx([half**2, CARRIED * half, 1.0])


def test_octaves_are_counted_from_the_newest_search() -> None:
    """The newest run that a search began is at octave 0 of the axis; without any, the oldest run is."""
    runs = [{"learning_rate": 0.04}, {"learning_rate": 0.02, "searched": True}, {"learning_rate": 0.01}]
    octaves = {
        "searched": evidence(*runs).points(evidence(*runs).runs).octaves,
        "not": evidence(*[{**run, "searched": False} for run in runs]).points(evidence(*runs).runs).octaves,
    }
    assert octaves["searched"] == pytest.approx([1.0, 0.0, -1.0])
    assert octaves["not"] == pytest.approx([0.0, -1.0, -2.0])


def test_runs_of_a_network_have_a_curve_of_their_own() -> None:
    """Both schedules share a curve on which each has its line; a network's offsets are another curve."""
    made = evidence({}, {"policy": "linear"}, {"policy": NETWORK, "lr_offset": 0.5}, {"horizon": 10})
    points = made.points(made.runs)
    assert len(set(points.lines.tolist())) == 3
    assert points.shapes.tolist() == [0, 0, 1, 0]
    assert points.octaves[2] == 0.5
    assert points.levels.tolist() == [0, 0, 0, 1]


# --------------------------------------------------------------------------------- surprises


@pytest.mark.parametrize(
    ("runs", "counting", "surprise"),
    [
        ([{}, SURPRISED], ["run-0", "run-1"], "run-1"),
        ([{}, SURPRISED, {}], ["run-0", "run-1", "run-2"], None),
        ([{}, SURPRISED, {}, SURPRISED], ["run-0", "run-1", "run-2", "run-3"], "run-3"),
        ([{}, {}, SURPRISED, UNDECIDED], ["run-2", "run-3"], None),
        ([{}, {}, SURPRISED, SURPRISED], ["run-2", "run-3"], "run-3"),
        ([{}, SURPRISED, UNDECIDED, {}], ["run-1", "run-2", "run-3"], None),
        ([{}, SURPRISED, UNDECIDED, SURPRISED], ["run-2", "run-3"], "run-3"),
        ([{}, SURPRISED, UNDECIDED, {}, SURPRISED], ["run-1", "run-2", "run-3", "run-4"], "run-4"),
        ([{}, SURPRISED, {"ending": Ending.STOPPED}, UNDECIDED], ["run-1", "run-3"], None),
        ([{}, SURPRISED, {"ending": Ending.UNDER_WAY}], ["run-0", "run-1"], "run-1"),
        ([{}, {**SURPRISED, "ending": Ending.DIVERGED}], ["run-0", "run-1"], "run-1"),
    ],
)
def test_one_surprise_is_told_and_two_in_a_row_are_a_change(
    runs: list[dict[str, Any]], counting: list[str], surprise: str | None
) -> None:
    """A surprise at the end is named if its arm was decided; before two in a row, no run counts."""
    made = evidence(*runs)
    assert ids(made.runs) == counting
    assert (made.surprise and made.surprise.run_id) == surprise


def test_a_surprise_of_another_family_changes_nothing() -> None:
    """Surprises under another kind of optimizer are none of this one's."""
    other = {**SURPRISED, "optimizer": Optimizer.SGD}
    assert ids(evidence({}, other, other).runs) == ["run-0"]
    assert evidence({}, other).surprise is None


# -------------------------------------------------------------------------------- properties


@given(LINEAGES)
def test_every_run_that_counts_can_be_compared(runs: list[PastRun]) -> None:
    """Scores are finite, 0 to the worst, and 0 for the best; weights are above 0 and at most 1."""
    made = evidence_of(runs, SETTING, NETWORK)
    scores, weights = made.scores, made.weights()
    assert len(scores) == len(weights) == len(made.runs)
    assert all(0.0 <= score <= WORST for score in scores)
    assert all(0.0 < weight <= 1.0 for weight in weights)
    if made.has_scores:
        assert scores.min() == 0.0
    assert {run.setting.family for run in (*made.runs, *made.under_way)} <= {SETTING.family}


@given(LINEAGES, LINEAGES)
def test_runs_of_another_family_change_nothing(runs: list[PastRun], others: list[PastRun]) -> None:
    """Runs of another kind of optimizer among those of this one say nothing, whatever they are."""
    foreign = [replace(run, optimizer=Optimizer.SGD) for run in others]
    mixed = [run for pair in zip(runs, foreign, strict=False) for run in pair]
    mixed += [*runs[len(foreign) :], *foreign[len(runs) :]]
    assert evidence_of(mixed, SETTING, NETWORK) == evidence_of(runs, SETTING, NETWORK)
