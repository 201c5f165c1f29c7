"""The summary: standings over rows, wrong starts, costs, what is missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mlrs_bench.report.bookkeeping import Cost, Missing, Stability
from mlrs_bench.report.methods import BEST_TUNED
from mlrs_bench.report.standings import Matchup
from mlrs_bench.report.summary import Summary, summarise
from mlrs_bench.report.targets import EVERY
from tests.bench.report.cells import FACTORS, benchmark, cell, row


@pytest.fixture(scope="module")
def whole() -> Summary:
    """Return the summary of a benchmark with everything in it."""
    return summarise(benchmark())


def test_nothing_measured() -> None:
    """Without cells there is a summary, and it says that nothing was measured."""
    empty = summarise([], tasks=["digits"])
    assert not empty.rows
    assert empty.missing == (Missing("task digits: no evaluation", ()),)
    assert {target.status.value for target in empty.targets} == {"not measured"}


def test_order_of_cells_does_not_matter(whole: Summary) -> None:
    """Cells in any order give the same summary, intervals included."""
    cells = benchmark()
    order = np.random.default_rng(5).permutation(len(cells))
    assert summarise(cells[each] for each in order) == whole


def test_factors_come_out(whole: Summary) -> None:
    """Standings recover what the losses were made from, within their noise."""
    for method, factor in FACTORS.items():
        standing = whole.standings[EVERY, method]
        assert standing.rows == standing.gap_rows == 6
        assert standing.median_log_ratio == pytest.approx(math.log(factor), abs=0.02)
        assert standing.gap is not None
        assert standing.gap.point == pytest.approx((1.5 - factor) / 0.5, abs=0.05)
        assert standing.gap.low <= standing.gap.point <= standing.gap.high


def test_groups(whole: Summary) -> None:
    """Figures are given over all rows, and for each optimizer over its own."""
    assert whole.groups == (EVERY, "adamw", "sgd")
    assert {whole.standings[group, "cosine"].rows for group in ("adamw", "sgd")} == {3}


def test_best_tuned_is_the_yardstick(whole: Summary) -> None:
    """The best tuned method closes the whole gap, with nothing left to chance."""
    standing = whole.standings[EVERY, BEST_TUNED]
    assert standing.gap is not None
    assert (standing.gap.low, standing.gap.point, standing.gap.high) == pytest.approx((1.0, 1.0, 1.0))
    assert standing.median_log_ratio == standing.worst_log_ratio == 0.0
    assert standing.near == 1.0


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
        for each in row({"mlr-snet": [0.6, 0.61], "cosine": losses}, task=task)
    ]
    found = summarise(cells)
    assert found.matchups["mlr-snet", "cosine"] == Matchup(wins=1, ties=1, losses=1, undecided=1)
    assert found.standings[EVERY, "cosine"].advised == found.matchups["mlr-snet", "cosine"]


def test_worst_and_near() -> None:
    """Of three rows at +1 %, +1.9 % and +30 %, two are near the best tuned loss and the last is worst."""
    cells = []
    for task, factor in {"a": 1.01, "b": 1.019, "c": 1.3}.items():
        cells += row({"tuned-wsd": [1.0, 1.2], "mlr-snet": [factor, 1.2 * factor]}, task=task)
    standing = summarise(cells).standings[EVERY, "mlr-snet"]
    assert standing.near == pytest.approx(2 / 3)
    assert standing.worst_row == "c / sgd"
    assert standing.worst_log_ratio == pytest.approx(math.log(1.3))
    assert standing.gap is None


def test_common_rows() -> None:
    """A method that ran on some rows is compared with the advised one on those rows."""
    easy = {"constant": [2.0, 2.1], "tuned-cosine": [1.0, 1.1], "mlr-snet": [1.0, 1.1]}
    hard = easy | {"mlr-snet": [1.5, 1.6]}
    cells = row(easy, task="easy") + row(hard | {"cosine": [1.8, 1.9]}, task="hard")
    standing = summarise(cells).standings[EVERY, "cosine"]
    assert (standing.rows, standing.gap_rows) == (1, 1)
    assert standing.advised_gap is not None
    assert standing.advised_gap.point == pytest.approx(0.5)


def test_common_rows_when_advice_is_missing() -> None:
    """Rows that the advised method lacks do not count where the two are compared."""
    easy = {"constant": [2.0, 2.1], "tuned-cosine": [1.0, 1.1], "cosine": [1.0, 1.1]}
    hard = easy | {"cosine": [1.8, 1.9], "mlr-snet": [1.5, 1.6]}
    standing = summarise(row(easy, task="easy") + row(hard, task="hard")).standings[EVERY, "cosine"]
    assert standing.gap is not None
    assert standing.common_gap is not None
    assert (standing.gap.point, standing.common_gap.point) == pytest.approx((0.6, 0.2))


def test_missing_cells() -> None:
    """Methods and seeds that some rows lack are named, with the rows; so are tasks never run."""
    cells = row({"cosine": [1.0, 1.0], "constant": [1.0, 1.0]}, task="a")
    cells += row({"cosine": [1.0]}, task="b")
    assert summarise(cells, tasks=["a", "b", "c"]).missing == (
        Missing("task c: no evaluation", ()),
        Missing("constant: not run", ("b / sgd",)),
        Missing("cosine: fewer than 2 seeds", ("b / sgd",)),
    )


def test_methods_of_one_optimizer() -> None:
    """A method that works with one optimizer is not missed under another; one that figures need is."""
    cells = row({"constant": [1.0, 1.0], "packaged": [1.0, 1.0]}) + row(
        {"cosine": [1.0, 1.0]}, optimizer="adamw"
    )
    assert summarise(cells).missing == (Missing("constant: not run", ("digits / adamw",)),)


def test_nothing_missing(whole: Summary) -> None:
    """A full table lacks nothing."""
    assert whole.missing == ()


def test_one_seed_gives_no_interval() -> None:
    """With one seed, losses and log ratios are there, and intervals and outcomes are not made up."""
    found = summarise(benchmark(seeds=1))
    standing = found.standings[EVERY, "mlr-snet"]
    assert standing.gap is None
    assert standing.log_ratio is None
    assert standing.median_log_ratio == pytest.approx(math.log(0.95), abs=0.03)
    assert found.matchups["mlr-snet", "constant"] == Matchup(0, 0, 0, 6)


@pytest.mark.parametrize(("moved", "sign"), [([0.55, 0.66], 1.0), ([0.5 / 1.1, 0.6 / 1.1], -1.0)])
def test_wrong_start_by_hand(moved: list[float], sign: float) -> None:
    """A start that changes a row by 10 % either way moves it by ln 1.1; a median is of sizes."""
    cells = row({"mlr-snet": [0.5, 0.6]}, task="a") + row({"mlr-snet": [0.5, 0.6]}, task="b")
    cells += row({"mlr-snet": moved}, task="a", start=0.1) + row(
        {"mlr-snet": [0.5, 0.6]}, task="b", start=0.1
    )
    (found,) = summarise(cells).sensitivities
    assert (found.method, found.start, found.rows) == ("mlr-snet", 0.1, 2)
    assert found.worst_move == pytest.approx(sign * math.log(1.1))
    assert found.median_move == pytest.approx(math.log(1.1) / 2)
    assert found.worst_row == "a / sgd"


def test_wrong_start_without_the_usual_one() -> None:
    """A wrong start on rows that lack the usual one moves nothing that is known."""
    (found,) = summarise([cell("mlr-snet", 1.0, start=10.0)]).sensitivities
    assert (found.rows, found.median_move, found.worst_move, found.runs) == (0, None, None, 1)


def test_divergences_count_whatever_the_start() -> None:
    """Evaluations that diverged are counted at every start, and trainings for tuning are not."""
    bad: dict[str, Any] = {"diverged": True}
    cells = [cell("cosine", 2.3, **bad), cell("cosine", 2.3, start=10.0, **bad), cell("cosine", 1.0, seed=1)]
    cells += [cell("cosine", 2.3, purpose="tune", base_lr=1.0, **bad)]
    assert summarise(cells).stabilities == {"cosine": Stability(runs=3, diverged=2)}


def test_tuning_cost(whole: Summary) -> None:
    """Tuning cost sums runs, steps and seconds over the rows of a method."""
    assert whole.tuning == {"tuned-cosine": Cost(rows=6, runs=18, steps=1800, seconds=pytest.approx(27.0))}


def test_accuracies() -> None:
    """Accuracy is the mean over seeds, absent where the task has none."""
    cells = [cell("tuned-wsd", 1.0, seed=seed, test_accuracy=each) for seed, each in enumerate([0.5, 0.7])]
    found = summarise([*cells, cell("cosine", 1.0)]).accuracies["digits", "sgd"]
    assert found == pytest.approx({"tuned-wsd": 0.6, BEST_TUNED: 0.6})
