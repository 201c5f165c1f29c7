"""The names that the report knows are the benchmark's."""

from __future__ import annotations

from mlrs_bench.methods import SCHEDULES
from mlrs_bench.methods import STARTS as BENCHMARK_STARTS
from mlrs_bench.methods import TUNED as TUNED_SCHEDULES
from mlrs_bench.models import ABLATIONS as NETWORKS
from mlrs_bench.models import ADVISED as NETWORK
from mlrs_bench.report.figures.methods import (
    ABLATIONS,
    ADVISED,
    CONSTANT,
    COSINE,
    OTHER_TUNED,
    TUNED,
    ordered,
    untuned,
)
from mlrs_bench.report.figures.rows import rows_of
from mlrs_bench.report.figures.sensitivity import STARTS
from tests.bench.report.cells import row


def test_names_are_the_benchmarks() -> None:
    """The methods and starts that figures are about are those that the benchmark runs."""
    assert ADVISED == NETWORK
    assert set(ABLATIONS) == set(NETWORKS)
    assert set(TUNED) == {f"tuned-{schedule}" for schedule in TUNED_SCHEDULES}
    assert {CONSTANT, COSINE} <= set(SCHEDULES)
    assert {1.0, *STARTS} == set(BENCHMARK_STARTS)


def test_order() -> None:
    """Tables begin with the advised method, its ablations and the tuned ones; others follow by name."""
    methods = {"zoom", "cosine", "tuned-wsd", "mlr-snet", "tuned-cosine", "best tuned", "mlr-snet-loss"}
    assert ordered(methods) == (
        "mlr-snet",
        "mlr-snet-loss",
        "best tuned",
        "tuned-cosine",
        "tuned-wsd",
        "cosine",
        "zoom",
    )
    assert untuned(methods) == ("cosine", "zoom")


def test_other_tuned_methods() -> None:
    """Tuned schedule-free stands with the tuned methods, is no yardstick and not untuned."""
    assert OTHER_TUNED == ("tuned-schedule-free",)
    assert ordered(["cosine", *OTHER_TUNED, "tuned-wsd"]) == ("tuned-wsd", *OTHER_TUNED, "cosine")
    assert untuned(["cosine", *OTHER_TUNED]) == ("cosine",)
    (found,) = rows_of(row({"tuned-wsd": [0.5, 0.5], "tuned-schedule-free": [0.1, 0.1]}))
    assert found.best_tuned == "tuned-wsd"
