"""One sequence of runs of a task: from a key to what its trainings came to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from mlrs.errors import TaskNotFoundError
from mlrs_bench.cell import Cell, CellKey
from mlrs_bench.memory.scenario import FACTOR, Scenario, Step, steps
from mlrs_bench.methods.method import Method
from mlrs_bench.methods.remembered import Remembered

if TYPE_CHECKING:
    from mlrs_bench.task import Task
    from mlrs_bench.workers import Trainer

METHOD = "memory"
"""What cells of these runs are called."""


@dataclass(frozen=True, kw_only=True)
class LineageKey:
    """Which sequence."""

    scenario: Scenario
    task: str
    optimizer: str
    repetition: int

    @property
    def name(self) -> str:
        """What the daemon remembers its runs by."""
        return f"{self.scenario}/{self.task}/{self.optimizer}/{self.repetition}"


@dataclass(frozen=True)
class Ended:
    """A run of a sequence, and what it came to."""

    number: int
    """How many runs of the task there were, this one included."""
    compared: bool
    cell: Cell
    why: str
    """What the memory said."""


@dataclass(frozen=True, kw_only=True)
class Lineage(LineageKey):
    """A sequence, trained."""

    ended: tuple[Ended, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the sequence of these JSON values.

        Raises:
            TypeError, KeyError, ValueError: fields are missing or unknown.
        """
        ended = tuple(Ended(**{**one, "cell": Cell.from_json(one["cell"])}) for one in values["ended"])
        return cls(**{**values, "scenario": Scenario(values["scenario"]), "ended": ended})


@dataclass(frozen=True)
class LineageJob:
    """A sequence to make."""

    key: LineageKey
    digest: str
    """Under which it is kept."""

    def label(self) -> str:
        """Return what messages call it."""
        return self.key.name

    def done_by(self, trainer: Trainer) -> Lineage:
        """Make its trainings, one after the other."""
        key = self.key
        with suppress(TaskNotFoundError):  # left by an attempt that was interrupted
            trainer.advisor.forget_task(key.name)
        ended = []
        for index, step in enumerate(steps(key.scenario, key.task, key.repetition)):
            cell, why = _trained(trainer, key, step, f"{self.digest[:32]}-{index}")
            ended.append(Ended(step.number, step.compared, cell, why))
        return Lineage(**vars(key), ended=tuple(ended))


def _trained(trainer: Trainer, key: LineageKey, step: Step, run_id: str) -> tuple[Cell, str]:
    """Make one training; return it, and why it was advised as it was."""
    from mlrs_bench.training import train

    own = trainer.tasks[key.task]
    replaced = dataclasses.replace(
        trainer.tasks[step.task], horizon=own.horizon, batch_size=own.batch_size
    )  # the same script, with another network and other data
    task = shrunk(replaced, step.shrunk)
    said = list[str]()

    def control(training: Any) -> Remembered:
        remembered = Remembered(training, explore=step.explore, keeps=step.keeps)
        said.append(remembered.why)
        return remembered

    method = Method(name=METHOD, about="", control=control, identity="")
    cell_key = CellKey(task=key.task, optimizer=key.optimizer, method=METHOD, seed=step.seed)
    named = dataclasses.replace(task, name=key.name)
    cell = train(cell_key, named, trainer.splits(trainer.tasks[step.task]), method, trainer.advisor, run_id)
    return dataclasses.replace(cell, train_curve=()), said[0]  # which no figure is of


def shrunk(task: Task, how: Scenario | None) -> Task:
    """Return a task with a quarter of its horizon or of its batch size."""
    if how is Scenario.HORIZON:
        return dataclasses.replace(task, horizon=task.horizon // FACTOR)
    if how is Scenario.BATCH_SIZE:
        return dataclasses.replace(task, batch_size=task.batch_size // FACTOR)
    return task
