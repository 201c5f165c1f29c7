"""The curve of a task in plain characters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs.types import Ending, TaskMemory
from mlrs_cli.tasks.curve import HEIGHT, WIDTH, curve_lines
from tests.client.values.test_task_memory import expected, past, remembered

CURVE = tuple(expected(2.0**octave, 1.0 + 0.25 * octave**2) for octave in (-3, -2, -1, 0, 1, 2, 3))
BEST = CURVE[3]


def drawing(memory: TaskMemory) -> list[str]:
    """Return the rows of the only drawing, without its axes."""
    return [line.partition("|")[2].ljust(WIDTH) for line in curve_lines(memory)[:HEIGHT]]


def test_a_curve_with_its_runs() -> None:
    """The best known is at the bottom in the middle, and runs are at their learning rates and values."""
    rows = drawing(remembered(past(3.75, rate=8.0), past(0.5, rate=0.125), curve=CURVE, best=BEST))
    assert rows[0][-1] == "o"
    assert rows[1][-1] == "."  # the band
    (row,) = [index for index, marks in enumerate(rows) if "*" in marks]
    assert abs(rows[row].index("*") - WIDTH / 2) <= 1
    assert rows[-1][0] == "o"
    assert sum("o" in marks for marks in rows) == 2
    assert all(any(marks[column] in "a*o" for marks in rows) for column in range(WIDTH))


def test_a_run_that_diverged() -> None:
    """A diverged run is a vertical line, whatever its value is."""
    rows = drawing(remembered(past(math.nan, rate=8.0, ending=Ending.DIVERGED), curve=CURVE))
    assert [marks[-1] for marks in rows] == [":"] * HEIGHT


def test_the_axes_have_numbers() -> None:
    """The ends of both axes have their numbers, and every policy has a letter."""
    lines = curve_lines(remembered(past(1.0, rate=1.0, policy="wsd"), curve=CURVE))
    assert lines[0].startswith("3.75 |")
    assert lines[HEIGHT - 1].startswith(" 0.5 |")
    assert lines[HEIGHT + 1].split() == ["0.125", "8"]
    assert lines[-1].startswith("a cosine; b wsd; ")


def test_models_are_drawn_apart() -> None:
    """Runs of models are drawn over the octaves of their offsets, below those with learning rates."""
    model = past(1.0, rate=None, policy="tail@1234", lr_offset=0.5)
    lines = curve_lines(remembered(past(1.0), model))
    assert lines.index("learning rate") < lines.index("octaves on the model's learning rates")


@pytest.mark.parametrize("memory", [remembered(), remembered(past(None)), remembered(past(math.nan))])
def test_nothing_to_draw(memory: TaskMemory) -> None:
    """Where no run has a value there is no drawing."""
    assert curve_lines(memory) == []


numbers = st.floats(-1e6, 1e6)


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e3), numbers | st.none() | st.just(math.nan)), max_size=5),
    st.lists(st.tuples(st.floats(1e-6, 1e3), numbers, st.sampled_from(["a", "b"])), max_size=5),
)
def test_whatever_is_remembered_can_be_drawn(
    runs: list[tuple[float, float | None]], curve: list[tuple[float, float, str]]
) -> None:
    """Every memory is drawn within the frame."""
    points = tuple(expected(rate, value, policy=policy) for rate, value, policy in curve)
    best = replace(points[0], value=points[0].value + 1.0) if points else None
    memory = remembered(*(past(value, rate=rate) for rate, value in runs), curve=points, best=best)
    for row in drawing(memory):
        assert len(row) == WIDTH
