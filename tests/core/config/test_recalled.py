"""What the memory of a task has decided, as a part of a run's config; and the batch size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mlrs_core.config import Measure, Recalled, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.errors import InvalidFieldError

RECALLED = Recalled(why="because", decided=True, measure=Measure.METRIC, expected_low=0.25, expected_high=0.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("why", 3),
        ("decided", 1),
        ("decided", None),
        ("measure", 1),
        ("measure", "metric"),
        ("expected_low", "0.25"),
        ("expected_low", True),
        ("expected_high", [0.5]),
    ],
)
def test_value_of_a_wrong_type_is_refused_by_name(field: str, value: Any) -> None:
    """A field of another type is refused, and the error names it."""
    with pytest.raises(InvalidFieldError, match=rf"^{field}: ") as caught:
        replace(RECALLED, **{field: value})
    assert caught.value.field == field


def test_what_was_decided_is_of_its_type() -> None:
    """A config takes a decision of the memory, and nothing else in its place."""
    assert RunConfig(recalled=RECALLED).recalled is RECALLED
    with pytest.raises(InvalidFieldError, match=r"^recalled: must be a Recalled"):
        RunConfig(recalled="because")  # type: ignore[arg-type]


def test_a_decision_survives_completion() -> None:
    """A config that the memory has decided keeps that when it is completed, resolved, and after a search."""
    config = RunConfig(horizon=9, schedule=ScheduleSpec(ScheduleKind.WSD, base_lr=0.5), recalled=RECALLED)
    assert set(config.given()) == {"horizon", "schedule", "recalled"}
    completed = config.completed_by(RunConfig(num_classes=10, batch_size=8))
    assert completed == replace(config, num_classes=10, batch_size=8)
    assert completed.resolved().recalled == RECALLED
    assert completed.after_search().recalled == RECALLED


@pytest.mark.parametrize("value", [0, -1, 2**53 + 1, 1.5, True, "8"])
def test_a_batch_size_out_of_range_is_refused(value: Any) -> None:
    """A batch size is a whole number of examples, 1 to 2**53, and the error names the field."""
    with pytest.raises(InvalidFieldError, match=r"^batch_size: "):
        RunConfig(batch_size=value)


@pytest.mark.parametrize("value", [1, 2**53])
def test_a_batch_size_in_range_is_taken(value: int) -> None:
    """Both ends of the range of the batch size are in it."""
    assert RunConfig(batch_size=value).values() == {"batch_size": value}
