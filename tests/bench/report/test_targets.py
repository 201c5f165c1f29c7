"""Targets: met, missed or not measured, by the numbers."""

from __future__ import annotations

import pytest

from mlrs_bench.report.figures.scope import Scope
from mlrs_bench.report.figures.targets import Status, Target, verdict
from tests.bench.report.cells import FACTORS, benchmark, cell, row, scope_of, summary_of

GAP = "gap to the best tuned schedule closed"
UNTUNED = "better than every untuned method, for each optimizer"
NEAR = "final loss near the best tuned one's"
FAR = "final loss never far from it"
STABLE = "divergences"
MEDIAN = "start ten times off, median row"
EVERY_ROW = "start ten times off, every row"
BLIND = "without the loss (mlr-snet-progress) clearly worse"
NAMES = (GAP, UNTUNED, NEAR, FAR, STABLE, MEDIAN, EVERY_ROW, BLIND)


def found(cells: list, scope: Scope | None = None) -> dict[str, Target]:
    """Return the targets by name."""
    return {target.name: target for target in summary_of(cells, scope=scope).targets}


def test_good_advice_meets() -> None:
    """Advice that beats the best tuned schedule on every row meets every target."""
    assert {name: target.verdict for name, target in found(benchmark()).items()} == dict.fromkeys(
        NAMES, "met"
    )


def with_factors(**factors: float) -> list:
    """Return a benchmark with other losses of some methods."""
    named = {name.replace("_", "-"): factor for name, factor in factors.items()}
    return benchmark(factors=FACTORS | named)


def moved(factor: float, *, tasks: int) -> list:
    """Return a benchmark where one start moves the loss by a factor on the first tasks."""
    default = {"mlr-snet": [1.0, 1.0]}
    cells = [each for task in "abc" for each in row(default, task=task)]
    cells += [each for task in "abc" for each in row(default, task=task, start=0.1)]
    for number, task in enumerate("abc"):
        size = factor if number < tasks else 1.0
        cells += row({"mlr-snet": [size, size]}, task=task, start=10.0)
    return cells


def with_divergence() -> list:
    """Return a benchmark where one training from a wrong start diverged."""
    return [*benchmark(), cell("mlr-snet", 2.3, task="task-0", start=10.0, seed=9, diverged=True)]


@pytest.mark.parametrize(
    ("cells", "missed"),
    [
        (with_factors(mlr_snet=1.03), {GAP, NEAR}),
        (with_factors(mlr_snet=1.2), {GAP, NEAR, FAR}),
        (with_factors(mlr_snet=1.3), {GAP, UNTUNED, NEAR, FAR}),
        (with_factors(cosine=0.9), {UNTUNED}),
        (with_factors(mlr_snet_progress=0.95), {BLIND}),
        (with_divergence(), {STABLE}),
        (moved(1.05, tasks=1), {EVERY_ROW}),
        (moved(1.05, tasks=2), {EVERY_ROW, MEDIAN}),
        (moved(1 / 1.05, tasks=2), {EVERY_ROW, MEDIAN}),
    ],
)
def test_what_is_missed(cells: list, missed: set[str]) -> None:
    """Each shortcoming misses the targets that it is about, and no other."""
    assert {name for name, target in found(cells).items() if target.status is Status.MISSED} == missed


def test_not_measured_says_so() -> None:
    """A target without the cells that it needs is not measured, never met."""
    cells = [each for each in benchmark() if each.method != "mlr-snet-progress" and each.start == 1.0]
    status = {name: target.status for name, target in found(cells).items()}
    assert {name for name, each in status.items() if each is Status.UNMEASURED} == {MEDIAN, EVERY_ROW, BLIND}


def test_one_start_of_two_is_not_enough() -> None:
    """With one wrong start measured and the other not, the target is open; missed once is missed."""
    cells = row({"mlr-snet": [1.0, 1.0]}) + row({"mlr-snet": [1.0, 1.0]}, start=0.1)
    assert found(cells)[EVERY_ROW].status is Status.UNMEASURED
    cells = row({"mlr-snet": [1.0, 1.0]}) + row({"mlr-snet": [2.0, 2.0]}, start=0.1)
    assert found(cells)[EVERY_ROW].status is Status.MISSED


def test_measured_names_the_method_not_beaten() -> None:
    """The target says which untuned method holds its ground, with paired log ratio and gaps."""
    measured = found(with_factors(cosine=0.9))[UNTUNED].measured
    assert measured.startswith("adamw: better than 1 of 2 (not cosine), closest cosine: ln +0.0")
    assert "; sgd: better than 1 of 2 (not cosine), closest cosine: ln +0.0" in measured
    assert measured.count("gap closed 1.") == 2


def test_rows_without_a_gap_are_judged() -> None:
    """Advice that loses to an untuned method only where there is no gap to close is not better."""
    gap = {"constant": [2.0, 2.1], "tuned-wsd": [1.0, 1.05], "cosine": [1.5, 1.6], "mlr-snet": [1.0, 1.05]}
    gainless = {"constant": [1.0, 1.0], "tuned-wsd": [1.0, 1.0], "cosine": [1.0, 1.0], "mlr-snet": [1.4, 1.4]}
    cells = row(gap, task="a") + [each for task in "bc" for each in row(gainless, task=task)]
    target = found(cells)[UNTUNED]
    assert target.verdict == "missed"
    assert target.judged == "sgd: 3 of 3 rows, 2 of 2 methods"


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
        (without(task="task-0", method="tuned-wsd", seed=1), {GAP, NEAR, FAR}),
        (without(task="task-0", optimizer="sgd", method="constant", seed=2), {GAP, UNTUNED}),
        (without(start=10.0, seed=0), {STABLE, MEDIAN, EVERY_ROW}),
        (without(task="task-1", start=0.1), {STABLE, MEDIAN, EVERY_ROW}),
        (without(task="task-1", method="mlr-snet-progress"), {BLIND}),
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
    assert {targets[name].judged for name in (GAP, NEAR, FAR, STABLE, BLIND)} == {"4 of 6 rows"}
    assert {targets[name].judged for name in (MEDIAN, EVERY_ROW)} == {"x0.1: 4 of 6 rows; x10: 4 of 6 rows"}
    assert targets[UNTUNED].judged == ("adamw: 2 of 3 rows, 2 of 2 methods; sgd: 2 of 3 rows, 2 of 2 methods")
    fragment = found(without(method="cosine"), scope_of(benchmark()))[UNTUNED]
    assert fragment.judged == "adamw: 3 of 3 rows, 1 of 2 methods; sgd: 3 of 3 rows, 1 of 2 methods"


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
