"""Rows: which losses count, the best tuned method, gap closed and log ratios."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_bench.report.figures.methods import BEST_TUNED, TUNED
from mlrs_bench.report.figures.rows import Row, rows_of
from tests.bench.report.cells import cell, row

loss = st.floats(0.01, 10.0)
losses = st.lists(loss, min_size=3, max_size=3)


def only(cells: list) -> Row:
    """Return the one row of the cells."""
    (found,) = rows_of(cells)
    return found


def test_gap_by_hand() -> None:
    """Constant at 1.0, the best tuned at 0.6 and a method at 0.7 on average: 3/4 of the gap."""
    found = only(
        row(
            {
                "constant": [1.0, 1.1, 0.9],
                "tuned-cosine": [0.6, 0.7, 0.5],
                "tuned-linear": [0.6, 0.7, 0.8],
                "mlr-snet": [0.7, 0.6, 0.8],
            }
        )
    )
    assert found.best_tuned == "tuned-cosine"
    assert found.scale == pytest.approx(0.4)
    assert found.gap_scores("mlr-snet") == pytest.approx([0.75, 1.25, 0.25])
    assert found.gap("mlr-snet") == pytest.approx(0.75)
    assert found.gap("constant") == pytest.approx(0.0)
    assert found.log_ratio("mlr-snet") == pytest.approx(math.log(0.7 / 0.6))
    assert found.log_scores("mlr-snet") == pytest.approx(
        [math.log(0.7 / 0.6), math.log(0.6 / 0.7), math.log(0.8 / 0.5)]
    )


def test_beyond_the_worst_tuned_schedule_by_hand() -> None:
    """A loss is compared with the worst tuned schedule, on the seeds that the two share."""
    tuned = {"tuned-cosine": [0.5, 0.5, 9.0], "tuned-wsd": [1.0, 0.6, 9.0]}
    found = only(row({**tuned, "mlr-snet": [1.0, 1.0]}))
    assert found.beyond_tuned("mlr-snet") == pytest.approx(math.log(1.0 / 0.8))
    assert found.beyond_tuned("search") is None
    assert only(row({"mlr-snet": [1.0, 1.0]})).beyond_tuned("mlr-snet") is None


@given(
    constant=st.lists(st.floats(50, 60), min_size=3, max_size=3),
    tuned=st.lists(losses, min_size=3, max_size=3),
    advised=losses,
)
def test_best_tuned_closes_the_gap(
    constant: list[float], tuned: list[list[float]], advised: list[float]
) -> None:
    """The best tuned method has gap 1 on every seed and log ratio 0; the constant one has gap 0."""
    found = only(row({"constant": constant, "mlr-snet": advised, **dict(zip(TUNED, tuned, strict=True))}))
    assert found.log_ratio(BEST_TUNED) == 0.0
    assert all(found.mean(BEST_TUNED) <= found.mean(method) + 1e-12 for method in TUNED)
    assert list(found.gap_scores(BEST_TUNED)) == [1.0] * 3
    assert found.gap("constant") == pytest.approx(0.0, abs=1e-6)


@given(order=st.permutations(range(9)))
def test_order_of_cells_does_not_matter(order: list[int]) -> None:
    """Cells in another order give the same row, bit for bit."""
    cells = row({"constant": [1.0, 1.1, 0.9], "tuned-wsd": [0.3, 0.4, 0.5], "mlr-snet": [0.4, 0.1, 0.3]})
    assert rows_of([cells[each] for each in order]) == rows_of(cells)


@pytest.mark.parametrize(
    ("constant", "tuned", "why"),
    [
        ([1.0, 1.0], [1.2, 1.3], "nothing beyond the noise"),
        ([1.0, 1.5, 1.2], [1.1, 1.0, 1.5], "nothing beyond the noise"),
        ([1.0], [0.5], "fewer than two seeds"),
        ([], [0.5, 0.5], "constant not measured"),
        ([1.0, 1.0], [], "best tuned not measured"),
    ],
)
def test_rows_without_a_gap(constant: list[float], tuned: list[float], why: str) -> None:
    """Where tuning gains nothing that is known, there is no gap figure, and the row says why."""
    found = only(row({"constant": constant, "tuned-linear": tuned, "mlr-snet": [0.4, 0.5]}))
    assert found.excluded is not None
    assert why in found.excluded
    assert found.gap("mlr-snet") is None
    assert found.gap_scores("mlr-snet") is None


def test_excluded_rows_keep_their_log_ratio() -> None:
    """A row without a gap figure is still compared with the best tuned loss."""
    found = only(row({"constant": [1.0, 1.0], "tuned-linear": [1.2, 1.2], "mlr-snet": [0.6, 0.6]}))
    assert found.log_ratio("mlr-snet") == pytest.approx(math.log(0.5))


@pytest.mark.parametrize(
    ("final", "counted"), [(math.nan, 9.2), (math.inf, 9.2), (9.2, 9.2), (2.3, 2.3), (0.1, 0.1)]
)
def test_diverged_training_counts(final: float, counted: float) -> None:
    """A diverged training counts as its cell says; without a number, as four times its initial loss."""
    assert only([cell("mlr-snet", final, diverged=True)]).mean("mlr-snet") == counted


def test_diverged_training_without_any_loss() -> None:
    """A diverged training with no finite loss at all is refused, by name and with the way out."""
    cells = [cell("mlr-snet", math.nan, diverged=True, initial_test_loss=math.inf, seed=4)]
    with pytest.raises(ValueError, match=r"digits/sgd, mlr-snet, seed 4.*initial_test_loss.*record"):
        rows_of(cells)


def test_same_measurement_twice() -> None:
    """Two cells of one measurement are refused, since one of them must be wrong."""
    with pytest.raises(ValueError, match="digits/sgd, cosine, seed 0, start x1: measured twice"):
        rows_of([cell("cosine", 1.0), cell("cosine", 0.9)])


def test_tuning_and_wrong_starts_are_not_evaluations() -> None:
    """A row's losses are those of evaluations with the default start."""
    cells = [cell("cosine", 1.0), cell("cosine", 9.0, start=10.0), cell("cosine", 9.0, purpose="tune")]
    assert only(cells).losses == {"cosine": {0: 1.0}}


def test_seeds_are_paired() -> None:
    """A method with some of the seeds is compared on those."""
    cells = row({"constant": [1.0, 1.1, 0.9], "tuned-cosine": [0.5, 0.8, 0.5]})
    found = only([*cells, cell("mlr-snet", 0.4, seed=1)])
    assert found.log_ratio("mlr-snet") == pytest.approx(math.log(0.4 / 0.8))
    assert found.gap_scores("mlr-snet") == pytest.approx([1.0 + 0.4 / 0.4])


def test_no_log_of_losses_that_are_not_positive() -> None:
    """A loss of 0 has no log ratio, and still a gap."""
    found = only(row({"constant": [1.0, 1.1], "tuned-cosine": [0.5, 0.5], "mlr-snet": [0.0, 0.0]}))
    assert found.log_ratio("mlr-snet") is None
    assert found.log_scores("mlr-snet") is None
    assert found.gap("mlr-snet") == pytest.approx(1.0 + 0.5 / 0.55)
