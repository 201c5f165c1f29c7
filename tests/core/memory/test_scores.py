"""Measures of how runs ended, as scores that can be compared."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.memory.scores import FEW, Scale

ACCURACIES = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6)
LOSSES = st.lists(st.floats(0.0, 1e9), min_size=2, max_size=6)
ANY = st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=6)


def scale_of(values: list[float], *, higher: bool) -> Scale:
    """Return the scale for values."""
    return Scale.of(values, higher_is_better=higher)


@pytest.mark.parametrize(
    ("values", "higher", "kind"),
    [
        ([0.0, 0.5, 1.0], True, "accuracy"),
        ([0.5, 1.5], True, "plain"),
        ([-0.5, 0.5], True, "plain"),
        ([0.0, 0.5, 200.0], False, "loss"),
        ([-0.1, 0.5], False, "plain"),
        ([], False, "loss"),
        ([], True, "accuracy"),
    ],
)
def test_the_kind_of_a_scale_follows_from_its_values(values: list[float], *, higher: bool, kind: str) -> None:
    """Shares where higher is better are accuracies, values from 0 on are losses, and others have no zero."""
    assert scale_of(values, higher=higher).kind == kind


def test_scores_differ_by_shares() -> None:
    """A loss, or an error of an accuracy and a bit, that is 2 % higher has a score higher by log 1.02."""
    loss, accuracy = scale_of([1.0, 2.0], higher=False), scale_of([0.5, 0.9], higher=True)
    for value in (1e-3, 1.0, 1e6):
        assert loss.score(1.02 * value) - loss.score(value) == pytest.approx(math.log(1.02))
    worse = 1 + FEW - 1.02 * (0.1 + FEW)
    assert accuracy.score(worse) - accuracy.score(0.9) == pytest.approx(math.log(1.02))


@given(values=ACCURACIES | LOSSES | ANY, higher=st.booleans())
def test_score_and_value_are_inverse(values: list[float], *, higher: bool) -> None:
    """The value of a score is the value that it came from."""
    scale = scale_of(values, higher=higher)
    near = 1e-9 * max(1.0, *map(abs, values))
    for value in values:
        score = scale.score(value)
        assert math.isfinite(score)
        assert scale.value(score) == pytest.approx(value, rel=1e-9, abs=near)


@given(values=ACCURACIES | LOSSES | ANY, higher=st.booleans())
def test_a_better_value_has_no_higher_score(values: list[float], *, higher: bool) -> None:
    """Scores are in the order of the values, the best the lowest, and so are values of scores."""
    scale = scale_of(values, higher=higher)
    scores = [scale.score(value) for value in sorted(values, reverse=higher)]
    assert scores == sorted(scores)
    back = [scale.value(score) for score in scores]
    assert back == sorted(back, reverse=higher)
    assert scale.falls == higher


@pytest.mark.parametrize(("values", "unit"), [([-4.0, 4.0], 8.0), ([-4.0, -4.0], 1.0), ([-8.0, -7.0], 2.0)])
def test_values_without_a_zero_are_in_units_of_their_spread(values: list[float], unit: float) -> None:
    """The spread counts as 1, but no less than a quarter of the largest value; a score is always finite."""
    scale = scale_of(values, higher=True)
    assert scale.score(values[0]) == pytest.approx(-values[0] / unit)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [0.0, 1e-3], [0.0, 1e-3, 5.0], [0.0, 1e-12]])
def test_a_loss_of_zero_has_a_score(values: list[float]) -> None:
    """A loss of 0 has a finite score, less than a factor of 2 below that of the least other loss."""
    scale = scale_of(values, higher=False)
    assert math.isfinite(scale.score(0.0))
    others = [value for value in values if value > 1e-9]
    if others:
        assert scale.score(min(others)) - scale.score(0.0) == pytest.approx(math.log(2.0))


def test_a_perfect_accuracy_has_a_score() -> None:
    """An accuracy of 1 has a finite score, not far below one of 99.9 %."""
    scale = scale_of([0.5, 1.0], higher=True)
    assert 0.0 < scale.score(0.999) - scale.score(1.0) < 0.1


@pytest.mark.parametrize("higher", [False, True])
def test_a_score_that_is_too_high_has_an_infinite_value(*, higher: bool) -> None:
    """The value of a score beyond all doubles is infinite, and no error."""
    assert scale_of([0.5, 1.0], higher=higher).value(5000.0) == (-math.inf if higher else math.inf)
