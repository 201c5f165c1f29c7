"""Targets: met, missed or not measured, by the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mlrs_bench.report.figures.methods import ABLATIONS
from mlrs_bench.report.figures.scope import Scope
from mlrs_bench.report.figures.sensitivity import STARTS
from mlrs_bench.report.figures.targets import Status, Target, verdict
from tests.bench.report.cells import FACTORS, benchmark, cell, row, scope_of, summary_of

GAP = "gap to the best tuned schedule closed"
ALONE = "gap closed without a search, by mlr-snet alone"
NEAR = "final loss near the best tuned one's"
FAR = "final loss never far from the tuned ones"
LOST = "trainings lost"
PARTS = "each part of the advice helps"
NAMES = (GAP, ALONE, NEAR, FAR, LOST, PARTS)


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
        (with_factor("search", 1.04), {GAP, NEAR}),
        (with_factor("search", 1.15), {GAP, NEAR, PARTS}),
        (with_factor("search", 1.25), {GAP, NEAR, FAR, PARTS}),
        (with_factor("mlr-snet", 1.2), {ALONE}),
        (with_factor("mlr-snet", 0.9), {PARTS}),
        (with_factor("search-signals", 0.95), {PARTS}),
        (with_factor("search-schedule", 0.9), {PARTS}),
        (with_factor("cosine", 0.9), set()),
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


@pytest.mark.parametrize(
    ("search", "status"),
    [([0.98, 1.08], Status.MET), ([0.9, 1.18], Status.MISSED), ([1.04, 1.08], Status.MISSED)],
)
def test_the_gap_and_its_lower_end(search: list[float], status: Status) -> None:
    """The gap closed is enough at 0.95 if the lower end of its interval is at least 0.90."""
    cells = row({"constant": [2.0, 2.0], "tuned-wsd": [1.0, 1.0], "search": search})
    assert found(cells)[GAP].status is status


@pytest.mark.parametrize(("loss", "status"), [(2.15, Status.MET), (2.25, Status.MISSED)])
def test_far_is_beyond_the_worst_tuned_schedule(loss: float, status: Status) -> None:
    """Where tuned schedules differ by as much, a loss twice the best one's is within their spread."""
    tuned = {"tuned-cosine": [1.0, 1.0], "tuned-linear": [2.0, 2.0]}
    target = found(row({**tuned, "search": [loss, loss]}))[FAR]
    assert target.status is status
    assert target.measured == f"+{100 * (loss / 2 - 1):.1f} % (digits / sgd)"


def test_not_measured_says_so() -> None:
    """A target without the cells that it needs is not measured, never met."""
    cells = [each for each in benchmark() if each.method not in ABLATIONS]
    status = {name: target.status for name, target in found(cells).items()}
    assert {name for name, each in status.items() if each is Status.UNMEASURED} == {ALONE, PARTS}


def without_part(search: list[float], part: list[float]) -> list:
    """Return a row where all that lacks a part ends at the same losses, and one without a gap to close."""
    yardsticks = {"constant": [2.0, 2.0], "tuned-wsd": [1.0, 1.0]}
    gainless = dict.fromkeys(("constant", "tuned-wsd", *ABLATIONS), (1.0, 1.0))
    return [
        *row({**yardsticks, "search": search, **dict.fromkeys(ABLATIONS, part)}, task="a"),
        *row({**gainless, "search": [1.4, 1.4]}, task="b"),
    ]


@pytest.mark.parametrize(
    ("search", "part", "status"),
    [
        ([1.1, 1.2], [1.3, 1.4], Status.MET),
        ([1.1, 1.3], [1.2, 1.4], Status.MISSED),
        ([1.1, 1.2], [1.2, 1.3], Status.MISSED),
        ([1.3, 1.4], [1.1, 1.2], Status.MISSED),
    ],
)
def test_a_part_helps_if_intervals_are_apart(search: list[float], part: list[float], status: Status) -> None:
    """Better on every seed is not enough where the intervals of the gap closed overlap or touch."""
    target = found(without_part(search, part))[PARTS]
    assert target.status is status
    assert target.judged == "1 of 2 rows"
    low, high = sorted(f"{2.0 - loss:.2f}" for loss in search)
    assert target.measured.count(f"[{low}, {high}] against") == len(ABLATIONS)


def test_every_part_has_to_help() -> None:
    """With some parts shown to help and one not measured, the target is open."""
    cells = [each for each in benchmark() if each.method != "search-signals"]
    target = found(cells, scope_of(benchmark()))[PARTS]
    assert target.status is Status.UNMEASURED
    assert target.verdict == "not fully measured"
    assert target.measured.startswith("search-losses: gap closed 1.")


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
        (without(method="cosine"), set()),
        (without(task="task-0", method="tuned-wsd", seed=1), {GAP, ALONE, NEAR, FAR, PARTS}),
        (without(task="task-0", optimizer="sgd", method="constant", seed=2), {GAP, ALONE, PARTS}),
        (without(start=10.0, seed=0), {LOST}),
        (without(task="task-1", start=0.01), {LOST}),
        (without(task="task-1", method="search-losses"), {PARTS}),
        (without(task="task-1", method="mlr-snet"), {ALONE, PARTS}),
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
    assert {target.judged for target in targets.values()} == {"4 of 6 rows"}


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
