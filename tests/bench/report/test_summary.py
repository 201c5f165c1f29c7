"""The summary: comparisons over rows, wrong starts, costs, what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.bookkeeping import Cost, Stability
from mlrs_bench.report.figures.comparisons import Matchup, share_near
from mlrs_bench.report.figures.losses import lost
from mlrs_bench.report.figures.methods import BEST_TUNED
from mlrs_bench.report.figures.summary import DEVELOPMENT, UNTOUCHED, Summary
from mlrs_bench.report.figures.targets import EVERY
from tests.bench.report.cells import FACTORS, benchmark, cell, row, scope_of, summary_of


@pytest.fixture(scope="module")
def whole() -> Summary:
    """Return the summary of a benchmark with everything in it."""
    return summary_of(benchmark())


def test_nothing_measured() -> None:
    """Without cells there is a summary, and it says that nothing was measured."""
    empty = summary_of([], scope=scope_of(benchmark()))
    assert not empty.rows
    assert {target.verdict for target in empty.targets} == {"not measured"}


def test_order_of_cells_does_not_matter(whole: Summary) -> None:
    """Cells in any order give the same summary, intervals included."""
    cells = benchmark()
    order = np.random.default_rng(5).permutation(len(cells))
    assert summary_of(cells[each] for each in order) == whole


def test_factors_come_out(whole: Summary) -> None:
    """Comparisons recover what the losses were made from, within their noise."""
    for method, factor in FACTORS.items():
        comparison = whole.comparisons[EVERY, method]
        assert comparison.rows == comparison.gap_rows == 6
        assert comparison.median_log_ratio == pytest.approx(math.log(factor), abs=0.02)
        assert comparison.gap is not None
        assert comparison.gap.point == pytest.approx((1.5 - factor) / 0.5, abs=0.05)
        assert comparison.gap.low <= comparison.gap.point <= comparison.gap.high


def test_groups(whole: Summary) -> None:
    """Figures are given over all rows, and for each optimizer over its own."""
    assert whole.groups == (EVERY, "adamw", "sgd")
    assert {whole.comparisons[group, "cosine"].rows for group in ("adamw", "sgd")} == {3}


def test_best_tuned_is_the_yardstick(whole: Summary) -> None:
    """The best tuned method closes the whole gap, with nothing left to chance."""
    comparison = whole.comparisons[EVERY, BEST_TUNED]
    assert comparison.gap is not None
    assert (comparison.gap.low, comparison.gap.point, comparison.gap.high) == pytest.approx((1.0, 1.0, 1.0))
    assert comparison.median_log_ratio == comparison.worst_log_ratio == 0.0
    assert comparison.near == 1.0


def test_matchups_are_antisymmetric(whole: Summary) -> None:
    """One method's wins are the other's losses, for every pair."""
    for (method, other), found in whole.matchups.items():
        mirror = whole.matchups[other, method]
        assert (found.wins, found.ties, found.losses) == (mirror.losses, mirror.ties, mirror.wins)
        assert found.decided + found.undecided == 6


def test_matchup_by_hand() -> None:
    """A row each is won, tied, lost and undecided."""
    others = {"a": [1.0, 1.1], "b": [0.5, 0.7], "c": [0.1, 0.2], "d": [1.0]}
    cells = [
        each
        for task, losses in others.items()
        for each in row({"search": [0.6, 0.61], "cosine": losses}, task=task)
    ]
    found = summary_of(cells)
    assert found.matchups["search", "cosine"] == Matchup(wins=1, ties=1, losses=1, undecided=1)
    assert found.comparisons[EVERY, "cosine"].advised == found.matchups["search", "cosine"]


def test_worst_and_near() -> None:
    """Of three rows at +1 %, +1.9 % and +30 %, two are near the best tuned loss and the last is worst."""
    cells = []
    for task, factor in {"a": 1.01, "b": 1.019, "c": 1.3}.items():
        cells += row({"tuned-wsd": [1.0, 1.2], "mlr-snet": [factor, 1.2 * factor]}, task=task)
    comparison = summary_of(cells).comparisons[EVERY, "mlr-snet"]
    assert comparison.near == pytest.approx(2 / 3)
    assert comparison.worst_row == "c / sgd"
    assert comparison.worst_log_ratio == pytest.approx(math.log(1.3))
    assert comparison.gap is None


@pytest.mark.parametrize(("loss", "share"), [(1.02, 1.0), (1.0199, 1.0), (1.0201, 0.0)])
def test_boundary_of_near(loss: float, share: float) -> None:
    """A loss 2 % above the best tuned one's is within 2 %; one a hundredth of a percent more is not."""
    cells = row({"tuned-wsd": [1.0, 1.0], "mlr-snet": [loss, loss]})
    assert summary_of(cells).comparisons[EVERY, "mlr-snet"].near == share
    assert share_near([math.log(loss)]) == share


def test_paired_log_ratio_by_hand() -> None:
    """Advice is compared with a method seed by seed, on rows with and without a gap to close."""
    gainless = {"constant": [1.0, 1.2], "tuned-cosine": [1.0, 1.2], "search": [0.9, 1.08]}
    cells = row(gainless, task="a") + row({"constant": [9.0, 1.0], "search": [8.1, 0.9]}, task="b")
    comparison = summary_of(cells).comparisons[EVERY, "constant"]
    assert (comparison.rows, comparison.gap_rows, comparison.common_gap_rows) == (2, 0, 0)
    assert comparison.advised_ratio is not None
    assert (comparison.advised_ratio.low, comparison.advised_ratio.high) == pytest.approx([math.log(0.9)] * 2)


def test_development_rows_apart() -> None:
    """Rows looked at during development and those that were not are groups of their own."""
    cells = [
        each
        for task in ("char-lstm", "linear", "cifar10-resnet", "digits-mixer", "mine")
        for each in row({"constant": [2.0, 2.1]}, task=task)
    ]
    found = summary_of(cells)
    assert found.groups == (EVERY, DEVELOPMENT, UNTOUCHED, "sgd")
    assert [found.comparisons[group, "constant"].rows for group in found.groups] == [5, 3, 1, 5]


def test_common_rows() -> None:
    """A method that ran on some rows is compared with the advised one on those rows."""
    easy = {"constant": [2.0, 2.1], "tuned-cosine": [1.0, 1.1], "search": [1.0, 1.1]}
    hard = easy | {"search": [1.5, 1.6]}
    cells = row(easy, task="easy") + row(hard | {"cosine": [1.8, 1.9]}, task="hard")
    comparison = summary_of(cells).comparisons[EVERY, "cosine"]
    assert (comparison.rows, comparison.gap_rows) == (1, 1)
    assert comparison.advised_gap is not None
    assert comparison.advised_gap.point == pytest.approx(0.5)


def test_common_rows_when_advice_is_missing() -> None:
    """Rows that the advised method lacks do not count where the two are compared."""
    easy = {"constant": [2.0, 2.1], "tuned-cosine": [1.0, 1.1], "cosine": [1.0, 1.1]}
    hard = easy | {"cosine": [1.8, 1.9], "search": [1.5, 1.6]}
    comparison = summary_of(row(easy, task="easy") + row(hard, task="hard")).comparisons[EVERY, "cosine"]
    assert comparison.gap is not None
    assert comparison.common_gap is not None
    assert (comparison.gap.point, comparison.common_gap.point) == pytest.approx((0.6, 0.2))
    assert (comparison.gap_rows, comparison.common_gap_rows) == (2, 1)


def test_nothing_missing(whole: Summary) -> None:
    """A full table lacks nothing."""
    assert whole.missing == ()


def test_one_seed_gives_no_interval() -> None:
    """With one seed, losses and log ratios are there, and intervals and outcomes are not made up."""
    found = summary_of(benchmark(seeds=1))
    comparison = found.comparisons[EVERY, "search"]
    assert comparison.gap is None
    assert comparison.log_ratio is None
    assert comparison.median_log_ratio == pytest.approx(math.log(0.95), abs=0.03)
    assert found.matchups["search", "constant"] == Matchup(0, 0, 0, 6)


def moved_rows(factors: Sequence[float], *, starts: Sequence[float] = (0.1,)) -> list[Cell]:
    """Return a row for each factor by which the losses differ that follow wrong starts."""
    cells = []
    for number, factor in enumerate(factors):
        cells += row({"search": [0.5, 0.6]}, task=f"task-{number}")
        for start in starts:
            cells += row({"search": [0.5 * factor, 0.6 * factor]}, task=f"task-{number}", start=start)
    return cells


@pytest.mark.parametrize(("factor", "sign"), [(1.1, 1.0), (1 / 1.1, -1.0)])
def test_wrong_start_by_hand(factor: float, sign: float) -> None:
    """A start that changes a row by 10 % either way moves it by ln 1.1; a median is of sizes."""
    (found,) = summary_of(moved_rows([factor, 1.0])).sensitivities
    assert (found.method, found.start, found.rows) == ("search", 0.1, 2)
    assert found.worst_move == pytest.approx(sign * math.log(1.1))
    assert found.median_move == pytest.approx(math.log(1.1) / 2)
    assert found.worst_row == "task-0 / sgd"


def test_starts_a_hundred_times_off() -> None:
    """They have figures of their own, beside those of starts ten times off, from the lowest up."""
    found = summary_of(moved_rows([1.1], starts=(100.0, 0.1, 0.01, 10.0))).sensitivities
    assert [each.start for each in found] == [0.01, 0.1, 10.0, 100.0]
    assert [each.median_move for each in found] == pytest.approx([math.log(1.1)] * 4)


def test_wrong_start_without_the_default_one() -> None:
    """A wrong start on rows that lack the default one moves nothing that is known."""
    (found,) = summary_of([cell("search", 1.0, start=10.0)]).sensitivities
    assert (found.rows, found.median_move, found.median_high) == (0, None, None)
    assert (found.worst_move, found.runs) == (None, 1)


@pytest.mark.parametrize(
    ("factors", "high"),
    [([1.1], 1.1), ([1.0, 1.1], 1.1), ([1.0, 1.0, 1 / 1.1], 1.1), ([1.0] * 9 + [1.1], 1.0)],
)
def test_what_the_median_move_may_be(factors: list[float], high: float) -> None:
    """The upper end of its interval is the largest move of one to three rows, and not of ten."""
    (found,) = summary_of(moved_rows(factors)).sensitivities
    assert found.median_high == pytest.approx(math.log(high), abs=1e-9)


def test_the_interval_of_the_median_move_is_scipys() -> None:
    """Its upper end is that of SciPy's percentile bootstrap over rows."""
    moves = np.random.default_rng(2).normal(scale=0.05, size=26)
    (found,) = summary_of(moved_rows(np.exp(moves))).sensitivities
    theirs = stats.bootstrap(
        (np.abs(moves),), np.median, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert found.median_move == pytest.approx(np.median(np.abs(moves)))
    assert found.median_high == pytest.approx(theirs.high, abs=0.002)


def test_failures_count_whatever_the_start() -> None:
    """Evaluations that failed in any way count at every start; trainings for tuning do not."""
    bad: dict[str, Any] = {"diverged": True}
    cells = [cell("cosine", 9.2, **bad), cell("cosine", 2.2, start=10.0), cell("cosine", 1.0, seed=1)]
    cells += [cell("cosine", 2.18, start=0.1), cell("cosine", 2.3, purpose="tune", base_lr=1.0, **bad)]
    cells += [cell("cosine", 2.31, start=100.0)]
    assert summary_of(cells).stabilities == {"cosine": Stability(runs=5, diverged=1, lost=2, not_learning=3)}


@pytest.mark.parametrize(
    ("ended", "is_lost"),
    [
        ({"test_loss": 2.3}, False),
        ({"test_loss": 2.2}, False),
        ({"test_loss": 2.31}, True),
        ({"test_loss": math.nan}, True),
        ({"test_loss": math.inf}, True),
        ({"test_loss": 9.2, "diverged": True}, True),
        ({"test_loss": 0.5, "diverged": True}, True),
    ],
)
def test_lost_by_hand(ended: dict[str, Any], *, is_lost: bool) -> None:
    """A training that began at 2.3 is lost if it ends above that or diverged, not if it learnt nothing."""
    assert lost(cell("cosine", **ended)) is is_lost


def test_tuning_cost(whole: Summary) -> None:
    """Tuning cost sums runs, steps and seconds over the rows of a method."""
    assert whole.tuning == {"tuned-cosine": Cost(rows=6, runs=18, steps=1800, seconds=pytest.approx(27.0))}


def test_accuracies() -> None:
    """Accuracy is the mean over seeds, absent where the task has none."""
    cells = [cell("tuned-wsd", 1.0, seed=seed, test_accuracy=each) for seed, each in enumerate([0.5, 0.7])]
    found = summary_of([*cells, cell("cosine", 1.0)]).accuracies["digits", "sgd"]
    assert found == pytest.approx({"tuned-wsd": 0.6, BEST_TUNED: 0.6})
