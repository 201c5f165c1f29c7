"""Signals and validation losses beside observations: compared by their bits, kept sparsely."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.policy import COLUMNS
from mlrs_server.domain.extras import (
    EXTRAS,
    LOSS,
    NO_EXTRAS,
    SENT,
    STEP,
    WIDTH,
    SparseExtras,
    agree,
    difference,
    find_sent,
    first_sent,
    inputs_of,
    is_sent,
    none_sent,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**53)), max_size=20, unique=True)
"""Rows and steps."""


def with_values(**values: float) -> np.ndarray:
    """Return extras of one observation, (WIDTH,), with these values."""
    extras = none_sent(1)[0]
    for name, value in values.items():
        extras[EXTRAS.index(name)] = value
    return extras


def test_extras_are_compared_by_their_bits() -> None:
    """A zero of the other sign, or a neighbour, differs; what is not sent again, NaN, is not compared."""
    one = with_values(update_norm2=0.0, validation_loss=1.0, validation_step=3)
    other_nan = np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    for change, is_same in (
        ({}, True),
        ({"grad_norm2": other_nan}, True),
        ({"update_norm2": -0.0}, False),
        ({"validation_loss": math.nextafter(1.0, 2.0)}, False),
        ({"validation_loss": math.nan}, True),
        ({"validation_step": 4}, False),
    ):
        other = one.copy()
        for name, value in change.items():
            other[EXTRAS.index(name)] = value
        assert agree(one[None], other[None]).tolist() == [is_same]
        assert bool(difference(one, other)) is not is_same


def test_a_difference_is_said_in_words() -> None:
    """The first column that differs is named, with both values, or that there is none."""
    one = with_values(grad_norm2=0.5, validation_loss=1.0, validation_step=3)
    other = with_values(validation_loss=1.0, validation_step=3)
    assert difference(other, one) == "with no grad_norm2, and comes now with the grad_norm2 0.5"
    later = with_values(grad_norm2=0.5, validation_loss=1.0, validation_step=4)
    assert difference(one, later) == "with the validation_step 3, and comes now with the validation_step 4"


def test_a_policy_reads_finite_numbers_only() -> None:
    """What is not finite is left out; the step of a validation loss is no input."""
    extras = np.stack(
        [with_values(update_norm2=1.5, grad_norm2=math.inf, validation_step=7), none_sent(1)[0]]
    )
    inputs = inputs_of(extras)
    assert inputs.shape == (2, len(COLUMNS))
    assert inputs.flags.c_contiguous
    assert inputs[0].tolist()[0] == 1.5
    assert np.isnan(inputs).sum() == 2 * len(COLUMNS) - 1


def test_a_validation_loss_of_nan_is_sent() -> None:
    """A validation loss that is NaN is told from none by its step."""
    assert is_sent(np.stack([with_values(validation_step=0), none_sent(1)[0]])).tolist() == [True, False]


def test_the_first_report_with_signals_counts_and_the_first_with_a_validation_loss() -> None:
    """Signals come from one report as a whole, and the validation loss with its step from one."""
    reports = [
        none_sent(1)[0],
        with_values(update_norm2=1.0),
        with_values(grad_norm2=2.0, validation_step=5),
        with_values(validation_loss=3.0, validation_step=6),
    ]
    first = first_sent(reports)
    assert first[0] == 1.0
    assert np.isnan(first[1:STEP]).all()
    assert first[STEP] == 5.0
    assert np.isnan(first[LOSS])
    assert np.isnan(first_sent([])).all()


@given(has=st.lists(st.booleans(), max_size=30), start=st.integers(0, 30), count=st.integers(0, 30))
def test_a_part_of_sparse_extras_is_that_part(has: list[bool], start: int, count: int) -> None:
    """Cutting sparse extras gives what cutting them with all rows written out gives."""
    positions = np.flatnonzero(np.array(has, np.bool_))
    extras = SparseExtras(positions, np.arange(len(positions) * WIDTH, dtype=float).reshape(-1, WIDTH))
    whole = extras.dense(len(has))
    part = extras.cut(start, count).dense(len(has[start : start + count]))
    if whole is None or not is_sent(whole[start : start + count]).any():
        assert part is None
    else:
        assert part is not None
        assert agree(part, whole[start : start + count]).all()
    assert NO_EXTRAS.dense(4) is None


@given(
    sent=PAIRS,
    wanted=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**53)), max_size=20),
    data=st.data(),
)
def test_extras_of_steps_are_found(
    sent: list[tuple[int, int]], wanted: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Each wanted step of a row gets its extras, as a dictionary has them; others get none."""
    wanted = wanted + data.draw(st.lists(st.sampled_from(sent), max_size=9)) if sent else wanted
    table = np.zeros(len(sent), SENT)
    for number, (row, step) in enumerate(sent):
        table[number] = (row, step, [number] * WIDTH)
    rows, steps = np.array(wanted, np.int64).reshape(-1, 2).T
    found = find_sent(table, rows, steps)
    numbers = {pair: float(number) for number, pair in enumerate(sent)}
    assert [row[0] for row in found.tolist() if not math.isnan(row[0])] == [
        numbers[pair] for pair in wanted if pair in numbers
    ]
    assert is_sent(found).tolist() == [pair in numbers for pair in wanted]
