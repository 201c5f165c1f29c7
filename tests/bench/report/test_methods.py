"""The names that the report knows are the benchmark's."""

from __future__ import annotations

from pathlib import Path

from mlrs_bench.methods import SCHEDULES, SEARCH, SEARCH_STARTS, all_methods
from mlrs_bench.methods import TUNED as TUNED_SCHEDULES
from mlrs_bench.models import ADVISED as SHIPPED
from mlrs_bench.models import META as META_METHODS
from mlrs_bench.models import ModelFile
from mlrs_bench.report.figures.methods import (
    ABLATIONS,
    ADVISED,
    CONSTANT,
    COSINE,
    META,
    NETWORK,
    OTHER_TUNED,
    SEARCHES,
    TUNED,
    ordered,
)
from mlrs_bench.report.figures.rows import rows_of
from mlrs_bench.report.figures.sensitivity import STARTS
from tests.bench.report.cells import row


def test_names_are_the_benchmarks() -> None:
    """The methods and starts that figures are about are those that the benchmark runs."""
    known = all_methods({SHIPPED: ModelFile(SHIPPED, about="", path=Path(), digest="")})
    assert (ADVISED, NETWORK, META) == (SEARCH, SHIPPED, META_METHODS)
    assert [method.name for method in known if "searched.py" in method.files] == [ADVISED, *SEARCHES]
    assert set(ABLATIONS) < {NETWORK, *SEARCHES}
    assert set(TUNED) == {f"tuned-{schedule}" for schedule in TUNED_SCHEDULES}
    assert {CONSTANT, COSINE} <= set(SCHEDULES)
    assert {1.0, *STARTS} == set(SEARCH_STARTS)
    assert {method.name for method in known if method.starts == SEARCH_STARTS} == {ADVISED}


def test_order() -> None:
    """Tables begin with the searches, the networks and the tuned methods; others follow by name."""
    methods = {"zoom", "cosine", "tuned-wsd", "mlr-snet", "tuned-cosine", "best tuned"}
    assert ordered(methods | {"search", "search-linear", "lightning+linear"}) == (
        "search",
        "search-linear",
        "mlr-snet",
        "best tuned",
        "tuned-cosine",
        "tuned-wsd",
        "cosine",
        "lightning+linear",
        "zoom",
    )


def test_other_tuned_methods() -> None:
    """Tuned schedule-free stands with the tuned methods, and is no yardstick."""
    assert OTHER_TUNED == ("tuned-schedule-free",)
    assert ordered(["cosine", *OTHER_TUNED, "tuned-wsd"]) == ("tuned-wsd", *OTHER_TUNED, "cosine")
    (found,) = rows_of(row({"tuned-wsd": [0.5, 0.5], "tuned-schedule-free": [0.1, 0.1]}))
    assert found.best_tuned == "tuned-wsd"
