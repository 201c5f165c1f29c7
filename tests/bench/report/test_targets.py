"""Targets: met, missed or not measured, by the numbers."""

from __future__ import annotations

import pytest

from mlrs_bench.report.summary import summarise
from mlrs_bench.report.targets import Status, Target, verdict
from tests.bench.report.cells import FACTORS, benchmark, cell, row

GAP = "gap to the best tuned schedule closed"
UNTUNED = "better than every untuned method, for each optimizer"
NEAR = "final loss near the best tuned one's"
FAR = "final loss never far from it"
STABLE = "divergences"
MEDIAN = "start ten times off, median row"
EVERY_ROW = "start ten times off, every row"
BLIND = "without the loss (mlr-snet-progress) clearly worse"
NAMES = (GAP, UNTUNED, NEAR, FAR, STABLE, MEDIAN, EVERY_ROW, BLIND)


def found(cells: list) -> dict[str, Target]:
    """Return the targets by name."""
    return {target.name: target for target in summarise(cells).targets}


def test_good_advice_meets() -> None:
    """Advice that beats the best tuned schedule on every row meets every target."""
    assert {name: target.status for name, target in found(benchmark()).items()} == dict.fromkeys(
        NAMES, Status.MET
    )


def with_factors(**factors: float) -> list:
    """Return a benchmark with other losses of some methods."""
    named = {name.replace("_", "-"): factor for name, factor in factors.items()}
    return benchmark(factors=FACTORS | named)


def moved(factor: float, *, tasks: int) -> list:
    """Return a benchmark where one start moves the loss by a factor on the first tasks."""
    usual = {"mlr-snet": [1.0, 1.0]}
    cells = [each for task in "abc" for each in row(usual, task=task)]
    cells += [each for task in "abc" for each in row(usual, task=task, start=0.1)]
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
    """The target says which untuned method holds its ground, and under which optimizer."""
    cells = with_factors(cosine=0.9)
    assert found(cells)[UNTUNED].measured == "adamw: 1 of 2 (not cosine); sgd: 1 of 2 (not cosine)"


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
