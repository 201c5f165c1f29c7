"""The names that the report knows are the benchmark's."""

from __future__ import annotations

from pathlib import Path

from mlrs_bench.methods import SCHEDULE_FILES, SCHEDULES, SEARCH, SEARCH_STARTS, all_methods
from mlrs_bench.methods import TUNED as TUNED_SCHEDULES
from mlrs_bench.methods.finders import finder_methods
from mlrs_bench.models import ADVISED as SHIPPED
from mlrs_bench.models import META as META_METHODS
from mlrs_bench.models import ModelFile
from mlrs_bench.report.figures.methods import (
    ADVISED,
    CONSTANT,
    COSINE,
    FINDERS,
    META,
    NETWORK,
    OTHER_TUNED,
    SEARCHES,
    TUNED,
    ordered,
    untuned,
)
from mlrs_bench.report.figures.rows import rows_of
from mlrs_bench.report.figures.sensitivity import STARTS
from mlrs_bench.report.figures.targets import MOST_MOVE
from tests.bench.report.cells import row


def test_names_are_the_benchmarks() -> None:
    """The methods and starts that figures are about are those that the benchmark runs."""
    known = all_methods({SHIPPED: ModelFile(SHIPPED, about="", path=Path(), digest="")})
    assert (ADVISED, NETWORK, META) == (SEARCH, SHIPPED, META_METHODS)
    assert [method.name for method in known if "searched.py" in method.files] == [ADVISED, *SEARCHES]
    assert tuple(method.name for method in finder_methods(SCHEDULE_FILES)) == FINDERS
    assert set(TUNED) == {f"tuned-{schedule}" for schedule in TUNED_SCHEDULES}
    assert {CONSTANT, COSINE} <= set(SCHEDULES)
    assert {1.0, *STARTS} == set(SEARCH_STARTS)
    assert set(STARTS) == set(MOST_MOVE)
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


def test_untuned_methods_are_rivals() -> None:
    """The network and the finders are untuned rivals; searches and meta mode are not."""
    methods = {ADVISED, *SEARCHES, NETWORK, *META, *TUNED, *FINDERS, "best tuned", "cosine"}
    assert untuned(methods) == (NETWORK, "cosine", *sorted(FINDERS))


def test_other_tuned_methods() -> None:
    """Tuned schedule-free stands with the tuned methods, is no yardstick and not untuned."""
    assert OTHER_TUNED == ("tuned-schedule-free",)
    assert ordered(["cosine", *OTHER_TUNED, "tuned-wsd"]) == ("tuned-wsd", *OTHER_TUNED, "cosine")
    assert untuned(["cosine", *OTHER_TUNED]) == ("cosine",)
    (found,) = rows_of(row({"tuned-wsd": [0.5, 0.5], "tuned-schedule-free": [0.1, 0.1]}))
    assert found.best_tuned == "tuned-wsd"
