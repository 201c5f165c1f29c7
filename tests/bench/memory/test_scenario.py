"""What sequences of runs are made of."""

from __future__ import annotations

import pytest

from mlrs_bench.memory.figures import compared_at
from mlrs_bench.memory.scenario import REPLACED_BY, Scenario, fits, steps
from mlrs_bench.plan import FIRST_SEED


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("repetition", [0, 2])
def test_compared_runs_have_the_seeds_of_evaluations(scenario: Scenario, repetition: int) -> None:
    """Runs that are compared have the benchmark's seed of the repetition, all others seeds of their own."""
    made = list(steps(scenario, "digits-cnn", repetition))
    assert {step.seed for step in made if step.compared} == {FIRST_SEED + repetition}
    others = [step.seed for step in made if not step.compared]
    assert len(set(others)) == len(others)
    assert min(others) > FIRST_SEED + 1000
    assert tuple(step.number for step in made if step.compared) == compared_at(scenario)


@pytest.mark.parametrize("scenario", [Scenario.CAREFUL, Scenario.FULL])
def test_what_is_compared_teaches_nothing(scenario: Scenario) -> None:
    """But for the first run, compared runs take the best known and are deleted; all others are remembered."""
    first, *others = steps(scenario, "digits-cnn", 0)
    assert first.keeps
    assert all((step.explore is False) == step.compared == (not step.keeps) for step in others)
    kept = [step.number for step in (first, *others) if step.keeps]
    assert kept == list(range(1, len(kept) + 1))


def test_something_changes_before_the_compared_run() -> None:
    """The horizon, the batch size or the task is another one in the runs before."""
    horizon, batch = (list(steps(one, "linear", 0)) for one in (Scenario.HORIZON, Scenario.BATCH_SIZE))
    assert [step.shrunk for step in horizon] == [Scenario.HORIZON] * 4 + [None]
    assert [step.shrunk for step in batch] == [Scenario.BATCH_SIZE] * 4 + [None]
    replaced = [step.task for step in steps(Scenario.REPLACED, "digits-cnn", 0)]
    assert replaced == [REPLACED_BY["digits-cnn"]] * 4 + ["digits-cnn"] * 2


def test_scenarios_fit_tasks() -> None:
    """A quarter of the horizon must be long enough to search in, and a task needs one to replace it."""
    assert not fits(Scenario.HORIZON, "digits-cnn", 400, 64)
    assert fits(Scenario.HORIZON, "linear", 4000, 64)
    assert not fits(Scenario.REPLACED, "linear", 4000, 64)
    assert not fits(Scenario.BATCH_SIZE, "mine", 4000, 2)
