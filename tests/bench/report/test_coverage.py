"""Coverage: the full benchmark, and what of it is not there."""

from __future__ import annotations

from mlrs_bench.bench import Request
from mlrs_bench.methods import all_methods
from mlrs_bench.models import OPTIONAL
from mlrs_bench.report.figures.coverage import Missing, coverage
from mlrs_bench.report.figures.methods import OTHER_TUNED
from mlrs_bench.report.figures.scope import (
    DEVELOPMENT_TASKS,
    SEEDS,
    UNTOUCHED_TASKS,
    Scope,
    benchmark_scope,
)
from mlrs_bench.rules import RULES
from mlrs_bench.tasks import CIFAR10_TASKS, TASKS
from tests.bench.report.cells import cell, row

SCOPE = Scope(
    rows=(("a", "sgd"), ("a", "adamw"), ("b", "sgd"), ("b", "adamw")),
    methods={"search": ("sgd", "adamw"), "prodigy": ("adamw",), "paper": ("sgd", "adamw")},
    seeds=2,
)


def test_scope_is_the_whole_benchmark() -> None:
    """Every built-in task under each optimizer; every method but tuned optimizers."""
    scope = benchmark_scope()
    assert set(scope.rows) == {(task, rule) for task in [*TASKS, *CIFAR10_TASKS] for rule in RULES}
    assert {*OPTIONAL, "paper", *(method.name for method in all_methods({}))} == {
        *scope.methods,
        *OTHER_TUNED,
    }
    assert (scope.methods["search"], scope.methods["prodigy"]) == (tuple(RULES), ("adamw",))
    assert scope.seeds == SEEDS == Request.seeds


def test_only_the_new_tasks_are_untouched() -> None:
    """Every built-in task is of one group; the tasks of CIFAR-10 were looked at as well."""
    assert {"ratings-factors", "coordinates-sine", "adding-gru", "digits-mixer"} == UNTOUCHED_TASKS
    assert {*TASKS, *CIFAR10_TASKS} == DEVELOPMENT_TASKS | UNTOUCHED_TASKS
    assert set(CIFAR10_TASKS) <= DEVELOPMENT_TASKS


def test_own_rows_are_the_whole() -> None:
    """For tasks of one's own the rows asked for are all rows; methods and seeds stay."""
    scope = benchmark_scope([("mine", "sgd")])
    assert scope.rows == (("mine", "sgd"),)
    assert scope.methods == benchmark_scope().methods


def test_missing() -> None:
    """Rows, methods, starts and seeds that lack are named, a row without anything once."""
    cells = row({"search": [1.0, 1.0]}, task="a") + row({"search": [1.0]}, task="b")
    cells += row({"search": [1.0, 1.0]}, task="a", start=0.1)
    cells += row({"search": [1.0, 1.0]}, task="a", start=100.0) + row(
        {"search": [1.0]}, task="b", start=100.0
    )
    cells += row({"prodigy": [1.0, 1.0], "search": [1.0, 1.0]}, task="a", optimizer="adamw")
    assert coverage(cells, SCOPE).missing() == (
        Missing("no evaluation", ("b / adamw",)),
        Missing("search: fewer than 2 seeds", ("b / sgd",)),
        Missing("paper: not run", ()),
        Missing("search from x0.01: not run", ()),
        Missing("search from x0.1: not run", ("a / adamw", "b / sgd")),
        Missing("search from x10: not run", ()),
        Missing("search from x100: not run", ("a / adamw",)),
        Missing("search from x100: fewer than 2 seeds", ("b / sgd",)),
    )


def test_rows_and_methods_beyond_the_scope_count() -> None:
    """What was measured beyond the scope is part of the whole: it must be complete as well."""
    found = coverage([cell("mine", 1.0, task="c")], SCOPE)
    assert found.rows == (*SCOPE.rows, ("c", "sgd"))
    assert found.methods == {"mine": ("sgd",), **SCOPE.methods}
    assert not found.complete(["mine"])


def test_complete() -> None:
    """A method is complete when all its rows, starts and seeds are there, wherever it cannot run."""
    cells = [
        each
        for task in "ab"
        for each in row({"prodigy": [1.0, 1.0], "paper": [1.0, 1.0]}, task=task, optimizer="adamw")
    ]
    found = coverage(cells, SCOPE)
    assert found.complete(["prodigy"])
    assert not found.complete(["prodigy"], starts=(1.0, 10.0))
    assert not found.complete(["paper"])
    assert not coverage(cells[1:], SCOPE).complete(["prodigy"])
