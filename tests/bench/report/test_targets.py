"""Targets: met, missed or not measured, by the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mlrs_bench.report.figures.methods import FINDERS
from mlrs_bench.report.figures.scope import Scope
from mlrs_bench.report.figures.sensitivity import STARTS
from mlrs_bench.report.figures.targets import Status, Target, verdict
from tests.bench.report.cells import FACTORS, benchmark, cell, row, scope_of, summary_of

GAP = "gap to the best tuned schedule closed"
UNTUNED = "better than every untuned method, for each optimizer"
NEAR = "final loss near the best tuned one's"
FAR = "final loss never far from it"
LOST = "trainings lost"
MEDIAN = "start that is off, median row"
FOUND = "better than the learning-rate finders of other packages, with a line after them"
NAMES = (GAP, UNTUNED, NEAR, FAR, LOST, MEDIAN, FOUND)


def found(cells: list, scope: Scope | None = None) -> dict[str, Target]:
    """Return the targets by name."""
    return {target.name: target for target in summary_of(cells, scope=scope).targets}


def missed(cells: list) -> set[str]:
    """Return the names of the targets that these cells miss."""
    return {name for name, target in found(cells).items() if target.status is Status.MISSED}


def test_good_advice_meets() -> None:
    """Advice that beats the best tuned schedule on every row meets every target."""
    assert {name: target.verdict for name, target in found(benchmark()).items()} == dict.fromkeys(
        NAMES, "met"
    )


def with_factor(method: str, factor: float) -> list:
    """Return a benchmark with other losses of a method."""
    return benchmark(factors=FACTORS | {method: factor})


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (with_factor("search", 1.04), {NEAR}),
        (with_factor("search", 1.14), {GAP, NEAR, FAR}),
        (with_factor("search", 1.24), {GAP, UNTUNED, NEAR, FAR}),
        (with_factor("search", 1.35), {GAP, UNTUNED, NEAR, FAR, FOUND}),
        (with_factor("cosine", 0.9), {UNTUNED}),
        (with_factor("mlr-snet", 0.9), {UNTUNED}),
        (with_factor("lightning+linear", 0.95), {UNTUNED, FOUND}),
    ],
)
def test_what_is_missed(cells: list, expected: set[str]) -> None:
    """Each shortcoming misses the targets that it is about, and no other."""
    assert missed(cells) == expected


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        ({"test_loss": 2.3}, set()),
        ({"test_loss": 2.4}, {LOST}),
        ({"test_loss": 2.2, "diverged": True}, {LOST}),
        ({"test_loss": 2.4, "method": "mlr-snet"}, set()),
    ],
)
@pytest.mark.parametrize("start", STARTS)
def test_no_training_may_be_lost(ended: dict[str, Any], expected: set[str], start: float) -> None:
    """One training that ends above its first loss misses, from any start; one that stays there does not."""
    ended = {"method": "search", **ended}
    cells = [*benchmark(), cell(**ended, task="task-0", start=start, seed=9)]
    assert missed(cells) == expected
    number = "1" if expected else "0"
    runs = 90 if ended["method"] == "mlr-snet" else 91
    assert found(cells)[LOST].measured == f"{number} of {runs} runs"


def moved(factor: float, *, start: float, tasks: int) -> list:
    """Return a benchmark where one start moves the loss by a factor on the first tasks of three."""
    cells = [each for task in "abc" for each in row({"search": [1.0, 1.0]}, task=task)]
    for number, task in enumerate("abc"):
        for each in STARTS:
            size = factor if each == start and number < tasks else 1.0
            cells += row({"search": [size, size]}, task=task, start=each)
    return cells


@pytest.mark.parametrize(("start", "most"), [(0.01, 1.03), (0.1, 1.02), (10.0, 1.02), (100.0, 1.03)])
def test_how_far_the_median_row_may_move(start: float, most: float) -> None:
    """It may move either way by 2 % from a start ten times off, and by 3 % from one a hundred times off."""
    assert missed(moved(most - 0.001, start=start, tasks=2)) == set()
    assert missed(moved(most + 0.001, start=start, tasks=1)) == set()
    assert missed(moved(most + 0.002, start=start, tasks=2)) == {MEDIAN}
    assert missed(moved(1 / (most + 0.002), start=start, tasks=2)) == {MEDIAN}


def test_moves_are_measured_with_their_upper_end() -> None:
    """The median move of each start stands beside the upper end of its interval, and beside its own goal."""
    target = found(moved(1.05, start=100.0, tasks=1))[MEDIAN]
    calm = "; ".join(f"x{start:g}: 0.0 %, at most 0.0 %" for start in STARTS[:3])
    assert target.measured == f"{calm}; x100: 0.0 %, at most 4.9 %"
    assert target.goal.endswith("x0.01: 3 %, x0.1: 2 %, x10: 2 %, x100: 3 %")


def test_not_measured_says_so() -> None:
    """A target without the cells that it needs is not measured, never met."""
    cells = [each for each in benchmark() if each.method not in FINDERS and each.start == 1.0]
    status = {name: target.status for name, target in found(cells).items()}
    assert {name for name, each in status.items() if each is Status.UNMEASURED} == {MEDIAN, FOUND}


def test_one_start_of_four_is_not_enough() -> None:
    """With one wrong start measured and the others not, the target is open; missed once is missed."""
    cells = row({"search": [1.0, 1.0]}) + row({"search": [1.0, 1.0]}, start=0.1)
    assert found(cells)[MEDIAN].status is Status.UNMEASURED
    cells = row({"search": [1.0, 1.0]}) + row({"search": [2.0, 2.0]}, start=0.1)
    assert found(cells)[MEDIAN].status is Status.MISSED


def test_measured_names_the_method_not_beaten() -> None:
    """The target says which untuned method holds its ground, with paired log ratio and gaps."""
    measured = found(with_factor("cosine", 0.9))[UNTUNED].measured
    assert measured.startswith("adamw: better than 4 of 5 (not cosine), closest cosine: ln +0.0")
    assert "; sgd: better than 4 of 5 (not cosine), closest cosine: ln +0.0" in measured
    assert measured.count("gap closed 1.") == 2


def test_rows_without_a_gap_are_judged() -> None:
    """Advice that loses to an untuned method only where there is no gap to close is not better."""
    gap = {"constant": [2.0, 2.1], "tuned-wsd": [1.0, 1.05], "cosine": [1.5, 1.6], "search": [1.0, 1.05]}
    gainless = {"constant": [1.0, 1.0], "tuned-wsd": [1.0, 1.0], "cosine": [1.0, 1.0], "search": [1.4, 1.4]}
    cells = row(gap, task="a") + [each for task in "bc" for each in row(gainless, task=task)]
    target = found(cells)[UNTUNED]
    assert target.verdict == "missed"
    assert target.judged == "sgd: 3 of 3 rows, 2 of 2 methods"


def against_finders(search: list[float], finder: list[float]) -> list:
    """Return a row where both finders end at the same losses, and one without a gap to close."""
    yardsticks = {"constant": [2.0, 2.0], "tuned-wsd": [1.0, 1.0]}
    gainless = dict.fromkeys(("constant", "tuned-wsd", *FINDERS), (1.0, 1.0))
    return [
        *row({**yardsticks, "search": search, **dict.fromkeys(FINDERS, finder)}, task="a"),
        *row({**gainless, "search": [1.4, 1.4]}, task="b"),
    ]


@pytest.mark.parametrize(
    ("search", "finder", "status"),
    [
        ([1.1, 1.2], [1.3, 1.4], Status.MET),
        ([1.1, 1.3], [1.2, 1.4], Status.MISSED),
        ([1.1, 1.2], [1.2, 1.3], Status.MISSED),
        ([1.3, 1.4], [1.1, 1.2], Status.MISSED),
    ],
)
def test_finders_are_beaten_if_intervals_are_apart(
    search: list[float], finder: list[float], status: Status
) -> None:
    """Better on every seed is not enough where the intervals of the gap closed overlap or touch."""
    target = found(against_finders(search, finder))[FOUND]
    assert target.status is status
    assert target.judged == "1 of 2 rows"
    low, high = sorted(f"{2.0 - loss:.2f}" for loss in search)
    assert target.measured.count(f"[{low}, {high}] against") == len(FINDERS)


def test_both_finders_have_to_be_beaten() -> None:
    """With one finder beaten and the other not run, the target is open."""
    cells = [each for each in benchmark() if each.method != FINDERS[0]]
    target = found(cells, scope_of(benchmark()))[FOUND]
    assert target.status is Status.UNMEASURED
    assert target.verdict == "not fully measured"
    assert target.measured.startswith(f"{FINDERS[1]}: ln -0.")


def without(**fields: object) -> list:
    """Return a benchmark without the evaluation cells that have all these values."""
    return [
        each
        for each in benchmark()
        if each.purpose != "eval" or any(getattr(each, name) != value for name, value in fields.items())
    ]


@pytest.mark.parametrize(
    ("cells", "open_targets"),
    [
        (without(task="task-0"), set(NAMES)),
        (without(task="task-0", optimizer="sgd", method="cosine"), {UNTUNED}),
        (without(method="cosine"), {UNTUNED}),
        (without(task="task-0", method="tuned-wsd", seed=1), {GAP, NEAR, FAR, FOUND}),
        (without(task="task-0", optimizer="sgd", method="constant", seed=2), {GAP, UNTUNED, FOUND}),
        (without(start=10.0, seed=0), {LOST, MEDIAN}),
        (without(task="task-1", start=0.01), {LOST, MEDIAN}),
        (without(task="task-1", method="lightning+linear"), {UNTUNED, FOUND}),
        (without(seed=0), set(NAMES)),
    ],
)
def test_fragments_are_not_met(cells: list, open_targets: set[str]) -> None:
    """Where a row, method, start or seed lacks, the targets that speak of it say so, with figures."""
    targets = found(cells, scope_of(benchmark()))
    assert {name for name, each in targets.items() if each.verdict != "met"} == open_targets
    for name in open_targets:
        assert targets[name].verdict == "not fully measured: so far met"
        assert targets[name].measured != "-"


def test_judged_on_how_many_rows() -> None:
    """Each target says over how many of all rows it was judged."""
    targets = found(without(task="task-0"), scope_of(benchmark()))
    assert {targets[name].judged for name in (GAP, NEAR, FAR, LOST, FOUND)} == {"4 of 6 rows"}
    assert targets[MEDIAN].judged == "; ".join(f"x{start:g}: 4 of 6 rows" for start in STARTS)
    assert targets[UNTUNED].judged == "adamw: 2 of 3 rows, 5 of 5 methods; sgd: 2 of 3 rows, 5 of 5 methods"
    fragment = found(without(method="cosine"), scope_of(benchmark()))[UNTUNED]
    assert fragment.judged == "adamw: 3 of 3 rows, 4 of 5 methods; sgd: 3 of 3 rows, 4 of 5 methods"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([], Status.UNMEASURED),
        ([True, True], Status.MET),
        ([True, None], Status.UNMEASURED),
        ([None, False], Status.MISSED),
    ],
)
def test_verdict(parts: list[bool | None], status: Status) -> None:
    """One part that fails is enough to miss, and all must be known to meet."""
    assert verdict(parts) is status
