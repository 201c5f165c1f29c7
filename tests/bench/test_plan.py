"""The plan: how base LRs are chosen, and which trainings follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.methods import Method
from mlrs_bench.plan import FIRST_SEED, MAX_EXTENSIONS, TUNING_SEEDS, Edge, Plan, Stage
from mlrs_bench.rules import RULES
from mlrs_bench.task import Task
from tests.bench.cells import cell_of


@pytest.fixture
def plan(tiny: Task, methods: dict[str, Method]) -> Plan:
    """A plan with a tuned method, two that are given initial LRs, and one for AdamW only."""
    names = ("tuned-cosine", "search", "mlr-snet", "prodigy", "constant")
    return Plan(tasks=[tiny], optimizers=["sgd"], methods=[methods[name] for name in names], seeds=3)


def finish(plan: Plan, end: Callable[[float], float], test: Callable[[float], float] = float) -> Stage:
    """Carry a plan out where a base LR ends at this validation and test loss; return its last stage."""
    cells: dict[CellKey, Cell] = {}
    while True:
        stage = plan.stage(cells.get)
        if all(key in cells for key in stage.tune):
            return stage
        for key in stage.tune:
            assert key.base_lr is not None
            cells[key] = cell_of(key, end(key.base_lr), test(key.base_lr))


def tuned(stage: Stage) -> set[float | None]:
    """Return the base LRs that the tuned method is evaluated at."""
    return {key.base_lr for key in stage.evaluate if key.method == "tuned-cosine"}


def test_tuning_chooses_by_validation_only(plan: Plan) -> None:
    """The base LR with the least validation loss is evaluated, whatever the test losses say."""
    stage = finish(plan, lambda lr: abs(math.log10(lr / 0.1)), lambda lr: -abs(math.log10(lr / 0.1)))
    assert tuned(stage) == {0.1}
    assert {key.base_lr for key in stage.tune} == set(RULES["sgd"].grid)


def test_tuning_and_evaluation_share_no_seed(plan: Plan) -> None:
    """Tuning uses two seeds of its own; evaluation uses as many others as were asked for."""
    stage = finish(plan, lambda lr: abs(math.log10(lr / 0.1)))
    assert {key.seed for key in stage.tune} == set(TUNING_SEEDS)
    assert {key.seed for key in stage.evaluate} == set(range(FIRST_SEED, FIRST_SEED + 3))
    assert {key.purpose for key in stage.tune} == {"tune"}
    assert {key.purpose for key in stage.evaluate} == {"eval"}


@pytest.mark.parametrize(("best", "beyond"), [(3.2, {3.2, 10.0}), (1e-4, {1e-4, 3.2e-4, 3.2e-5})])
def test_the_grid_grows_until_the_best_is_inside(plan: Plan, best: float, beyond: set[float]) -> None:
    """While the best base LR is at an edge of the grid, the next one beyond it is tried."""
    stage = finish(plan, lambda lr: abs(math.log10(lr / best)))
    assert tuned(stage) == {best}
    assert stage.edges == []
    assert {key.base_lr for key in stage.tune} == set(RULES["sgd"].grid) | beyond


def test_the_grid_does_not_grow_forever(plan: Plan) -> None:
    """A task that is the better the lower the LR ends the search after a few base LRs more, and says so."""
    stage = finish(plan, lambda lr: lr)
    assert len({key.base_lr for key in stage.tune}) == len(RULES["sgd"].grid) + MAX_EXTENSIONS
    assert stage.edges == [Edge("tiny", "sgd", "tuned-cosine", 1e-6)]
    assert tuned(stage) == {1e-6}


def test_a_task_may_name_what_tuning_tries(plan: Plan) -> None:
    """Its rows are of the named optimizers, and no other base LR is tried, even if the best is at an end."""
    task = replace(plan.tasks[0], tuned_at={"sgd": (0.01, 0.1)})
    named = replace(plan, tasks=[task], optimizers=["sgd", "adamw"])
    stage = finish(named, lambda lr: -lr)
    assert named.rows == [(task, "sgd")]
    assert {(key.optimizer, key.base_lr) for key in stage.tune} == {("sgd", 0.01), ("sgd", 0.1)}
    assert stage.edges == [Edge("tiny", "sgd", "tuned-cosine", 0.1)]


def test_evaluation_waits_for_its_tuning_only(plan: Plan) -> None:
    """Before tuning, a tuned method's evaluations are undecided, and the others are known."""
    stage = plan.stage(lambda _key: None)
    assert tuned(stage) == set()
    assert len(stage.undecided) == 3
    assert {(key.method, key.start) for key in stage.evaluate} == {
        ("constant", 1.0),
        *(("search", start) for start in (1.0, 0.01, 0.1, 10.0, 100.0)),
        *(("mlr-snet", start) for start in (1.0, 0.1, 10.0)),
    }
