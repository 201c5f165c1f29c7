"""What is tried: sequences of runs of one task, each of which the daemon remembers when the next begins."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from mlrs_bench.methods.remembered import ExploreOption
from mlrs_bench.plan import FIRST_SEED

REPETITIONS = 3
"""How often every sequence is made, with other seeds."""
FIRST_EXPLORING_SEED = 10_000
"""The first of the seeds of runs that are not compared."""
BEFORE_CHANGE = 4
"""The runs before the horizon, the batch size or the task changes."""
FACTOR = 4
"""By how much the horizon or the batch size grows then."""
LEAST_HORIZON = 200
"""The shortest horizon that a search is made for."""


class Scenario(enum.StrEnum):
    """A kind of sequence."""

    CAREFUL = "careful"
    """Eight runs that explore carefully."""
    FULL = "full"
    """Six runs that explore fully."""
    HORIZON = "horizon"
    """Careful runs of a quarter of the steps, then one of all."""
    BATCH_SIZE = "batch-size"
    """Careful runs with a quarter of the batch size, then one with all of it."""
    REPLACED = "replaced"
    """Careful runs of another task under the same name, then two of this one."""


RUNS = {Scenario.CAREFUL: 8, Scenario.FULL: 6}
"""The number of runs of a task that stays as it is."""
REPLACED_BY = {
    "digits-cnn": "digits-autoencoder",
    "digits-autoencoder": "char-transformer",
    "char-transformer": "char-lstm",
    "char-lstm": "coordinates-sine",
    "coordinates-sine": "ratings-factors",
    "ratings-factors": "digits-mixer",
    "digits-mixer": "digits-cnn",
}
"""The task that is trained first under the name of another, by that one: each of another kind of network."""


@dataclass(frozen=True)
class Step:
    """One run of a sequence."""

    number: int
    """How many runs of the task there were, this one included."""
    task: str
    """What is trained, by the benchmark's name."""
    explore: ExploreOption
    seed: int
    compared: bool
    """Whether its final loss is compared with other methods' on the same seed."""
    keeps: bool
    """Whether it is remembered."""
    shrunk: Scenario | None = None
    """What is a quarter of the task's: the horizon or the batch size."""


def steps(scenario: Scenario, task: str, repetition: int) -> Iterator[Step]:
    """Yield the runs of a sequence, in order.

    Runs that are compared have the seeds of the benchmark's evaluations. Where the task stays, one before
    each number of `compared_at` is made with the best known arm and tells no metric, so that it teaches
    nothing.
    """
    fresh = FIRST_SEED + repetition
    exploring = FIRST_EXPLORING_SEED + 100 * repetition
    if scenario in RUNS:
        explore: ExploreOption = "careful" if scenario is Scenario.CAREFUL else "full"
        yield Step(1, task, explore, fresh, compared=True, keeps=True)
        for number in range(2, RUNS[scenario] + 1):
            if number % 2 == 0:
                yield Step(number, task, False, fresh, compared=True, keeps=False)
            yield Step(number, task, explore, exploring + number, compared=False, keeps=True)
        return
    other = REPLACED_BY[task] if scenario is Scenario.REPLACED else task
    shrunk = None if scenario is Scenario.REPLACED else scenario
    for number in range(1, BEFORE_CHANGE + 1):
        yield Step(number, other, "careful", exploring + number, compared=False, keeps=True, shrunk=shrunk)
    if scenario is Scenario.REPLACED:
        number = BEFORE_CHANGE + 1
        yield Step(number, task, "careful", exploring + number, compared=False, keeps=True)
        yield Step(number + 1, task, "careful", fresh, compared=True, keeps=True)
    else:
        yield Step(BEFORE_CHANGE + 1, task, "careful", fresh, compared=True, keeps=True)


def fits(scenario: Scenario, task: str, horizon: int, batch_size: int) -> bool:
    """Return whether a scenario makes sense for a task."""
    if scenario is Scenario.HORIZON:
        return horizon // FACTOR >= LEAST_HORIZON
    if scenario is Scenario.BATCH_SIZE:
        return batch_size >= FACTOR
    return scenario is not Scenario.REPLACED or task in REPLACED_BY
