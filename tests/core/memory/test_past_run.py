"""A run as the memory has it: by which measure it counts, and whether it is a surprise."""

from __future__ import annotations

from typing import Any

import pytest

from mlrs_core.config import Measure, Optimizer, Recalled
from mlrs_core.memory import Ending
from tests.core.memory.lineages import SETTING, expecting, past

LOSS = Measure.TRAINING_LOSS


@pytest.mark.parametrize(
    ("values", "measure", "value"),
    [
        ({"metric": 0.5, "validation_loss": 2.0}, Measure.METRIC, 0.5),
        ({"metric": 0.0, "validation_loss": 2.0}, Measure.METRIC, 0.0),
        ({"validation_loss": 2.0}, Measure.VALIDATION_LOSS, 2.0),
        ({}, Measure.TRAINING_LOSS, 1.0),
        ({"training_loss": None}, Measure.UNSPECIFIED, None),
    ],
)
def test_the_best_measure_counts(values: dict[str, Any], measure: Measure, value: float | None) -> None:
    """The caller's metric comes before the validation loss, and that before the training loss."""
    run = past(**values)
    assert run.best_measure == measure
    assert run.measured(measure) == value


@pytest.mark.parametrize("ending", [Ending.DIVERGED, Ending.STOPPED, Ending.UNDER_WAY])
def test_only_a_run_that_reached_its_horizon_is_measured(ending: Ending) -> None:
    """A run that ended otherwise has no score, whatever is known of it."""
    run = past(ending=ending, metric=0.5, validation_loss=2.0)
    assert run.best_measure is Measure.UNSPECIFIED
    assert [run.measured(measure) for measure in Measure] == [None] * 4


@pytest.mark.parametrize(
    ("recalled", "values", "surprise"),
    [
        (None, {}, False),
        (None, {"ending": Ending.DIVERGED}, False),
        (Recalled(why=""), {"ending": Ending.DIVERGED}, False),
        (expecting(0.9, 1.1), {}, False),
        (expecting(1.0, 1.0), {}, False),
        (expecting(1.01, 1.1), {}, True),
        (expecting(0.9, 0.99), {}, True),
        (expecting(None, 1.1), {}, False),
        (expecting(None, 0.9), {}, True),
        (expecting(1.1, None), {}, True),
        (expecting(None, None), {}, False),
        (expecting(0.9, 1.1), {"ending": Ending.DIVERGED}, True),
        (expecting(5.0, 6.0), {"ending": Ending.STOPPED}, False),
        (expecting(5.0, 6.0), {"ending": Ending.UNDER_WAY}, False),
        (expecting(5.0, 6.0, Measure.METRIC), {}, False),
        (expecting(5.0, 6.0, Measure.METRIC), {"metric": 4.0}, True),
    ],
)
def test_a_surprise(recalled: Recalled | None, values: dict[str, Any], *, surprise: bool) -> None:
    """A run is a surprise if it ended outside of what was expected by that measure, or diverged instead."""
    assert past(recalled=recalled, **values).is_surprise == surprise


def test_what_a_learning_rate_was_for() -> None:
    """The setting of a run is its optimizer with its momentum, its horizon and its batch size."""
    assert past().setting == SETTING
    assert past(optimizer=Optimizer.SGD).setting != SETTING
