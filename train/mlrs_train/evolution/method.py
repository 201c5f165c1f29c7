"""The algorithm: phi learns from lessons, then moves by what populations around it reach on random tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlrs_core.models.model import Model
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.engines.engine import Job, JobEngine
from mlrs_train.evolution.engines.in_process import InThisProcess
from mlrs_train.evolution.estimator import EvolutionSearch
from mlrs_train.evolution.lessons.lesson import give_lesson
from mlrs_train.evolution.lessons.study import Study
from mlrs_train.evolution.sample import START, STUDY, draw_sample, unpack
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.yardsticks import Yardsticks
from mlrs_train.method import LogRecord

INITIAL_SCALE, INITIAL_HEAD = 0.1, 0.01
"""The standard deviations of the first weights: of the cell's, and of those of the head's first number."""
LAST_LESSON_LR = 0.05
"""The last learning rate on lessons, over the first."""


class Evolution:
    """`TrainingMethod` of meta-training by evolution.

    Attributes:
        engine: what computes the tasks; any time another, for the result does not depend on it.
        steps_done: updates.
    """

    def __init__(self, settings: EvolutionSettings) -> None:
        """Build a training at its first step."""
        choose_families(settings.families)  # a wrong name is an error now, not an update later
        self.settings = settings
        self.engine: JobEngine = InThisProcess()
        self.search = EvolutionSearch(initial_phi(settings), averaging=settings.averaging)
        self.study: Study | None = None
        self.yardsticks = Yardsticks(settings)
        self.steps_done = 0
        self.elapsed_s = 0.0
        self._log_ratios: list[float] = []
        self._costs: list[float] = []

    @property
    def steps_total(self) -> int:
        """Updates in all; an estimate until the end where time is what is limited."""
        if self.settings.updates is not None:
            return self.settings.updates
        done = self.steps_done
        return done if self._share >= 1 else max(done + 1, round(done / max(self._share, 1e-9)))

    @property
    def _share(self) -> float:
        """The share of evolution that is over; below 0 during lessons."""
        if self.settings.minutes is not None:
            return self.elapsed_s / (60 * self.settings.minutes)
        updates = (self.settings.updates or 1) - self._lesson_updates
        return (self.steps_done - self._lesson_updates) / max(updates, 1)

    @property
    def _lesson_updates(self) -> int:
        return self.settings.lesson_updates or 0

    def advance(self) -> LogRecord | None:
        """Make one update of phi; return a record when one is due.

        Raises:
            EngineError: a task failed, or no worker survived it.
        """
        began, lr = time.monotonic(), self.meta_lr()
        if self.steps_done < self._lesson_updates:
            self._learn(lr)
        else:
            self._evolve(lr)
        self.steps_done += 1
        self.elapsed_s += time.monotonic() - began
        return self._record(lr)

    def _learn(self, lr: float) -> None:
        """Take new lessons, and make some steps on all of them.

        A study is not part of a checkpoint: lessons are pure functions of their number, and those of before
        are taken again.
        """
        if self.study is None:
            self.study = Study(self.settings.architecture())
        count = self.settings.lessons_per_update * (self.steps_done + 1)
        jobs = [
            Job(f"Lesson {number}", give_lesson, (self.settings, number))
            for number in range(self.study.count, count)
        ]
        self.study.add(self.engine.compute(jobs))
        draw = Draw(STUDY, self.settings.seed, self.steps_done)
        for _ in range(self.settings.lesson_steps):
            gradient, cost = self.study.gradient(self.search.phi, draw)
            self.search.step(gradient, lr)
            self._costs.append(cost)
        if self.steps_done + 1 == self._lesson_updates:
            self.study = None
            self.search = EvolutionSearch(self.search.average, averaging=self.settings.averaging)

    def _evolve(self, lr: float) -> None:
        """Train populations on new tasks, and make a step by what they reach."""
        update = self.steps_done
        samples = self.engine.compute(
            [
                Job(
                    f"Task {index} of update {update} (counted from 0)",
                    draw_sample,
                    (self.settings, self.search.phi, update, index),
                )
                for index in range(self.tasks_now())
            ]
        )
        self.search.step(torch.stack([sample.estimate for sample in samples]).mean(0), lr)
        self._log_ratios += [sample.log_ratio for sample in samples]

    def meta_lr(self) -> float:
        """Return Adam's learning rate on phi: down along a line on lessons, along another in evolution."""
        if self.steps_done < self._lesson_updates:
            return self.settings.lesson_lr * (
                1 - (1 - LAST_LESSON_LR) * self.steps_done / self._lesson_updates
            )
        share = min(self._share, 1.0)
        return self.settings.meta_lr + share * (self.settings.final_meta_lr - self.settings.meta_lr)

    def tasks_now(self) -> int:
        """Return the number of tasks in the next update."""
        first, last = self.settings.first_tasks_per_update or 1, self.settings.tasks_per_update
        growth = math.log(last / first) * min(self._share, 1.0)
        return round(first * math.exp(growth))

    def _record(self, lr: float) -> LogRecord | None:
        """Return a record if one is due: now and then, and at the end."""
        validates = self.steps_done == self.steps_total or self.steps_done % self.settings.validate_every == 0
        if not (validates or self.steps_done % self.settings.log_every == 0):
            return None
        values = {"meta_lr": lr}
        if self._log_ratios:
            values["to_search"] = float(torch.tensor(self._log_ratios).median())
        if self._costs:
            values["lesson_cost"] = math.fsum(self._costs) / len(self._costs)
        self._log_ratios, self._costs = [], []
        if validates:
            began = time.monotonic()
            values |= self.yardsticks.compare(self.search.average, self.engine)
            self.elapsed_s += time.monotonic() - began
        return LogRecord(task="evolution", step=self.steps_done, values=values)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as tensors and plain values."""
        return {
            "search": self.search.state_dict(),
            "yardsticks": self.yardsticks.state_dict(),
            "steps_done": self.steps_done,
            "elapsed_s": self.elapsed_s,
            "log_ratios": list(self._log_ratios),
            "costs": list(self._costs),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.search.load_state_dict(state["search"])
        self.yardsticks.load_state_dict(state["yardsticks"])
        self.steps_done = state["steps_done"]
        self.elapsed_s = state["elapsed_s"]
        self._log_ratios = list(state["log_ratios"])
        self._costs = list(state["costs"])

    def model(self, provenance: Mapping[str, Any]) -> Model:
        """Return the model of the averaged weights, with what the method adds to its provenance."""
        spec = self.settings.architecture()
        weights = unpack(spec, self.search.average[None])
        facts = {"updates": self.steps_done, "data": "generated; scikit-learn's wine, breast_cancer, iris"}
        return Model(
            architecture=spec,
            snapshots=({name: tensor[0].numpy() for name, tensor in weights.items()},),
            provenance={**provenance, **facts},
        )


def initial_phi(settings: EvolutionSettings) -> Tensor:
    """Return the first weights: small and random, biases 0, so that the network hardly corrects anything.

    The head's second number is 0 until evolution finds a use for it; lessons leave it alone.
    """
    draw, spec = Draw(START, settings.seed), settings.architecture()
    weights = {
        name: torch.zeros(shape) if name.endswith("bias") else draw.normal(*shape)
        for name, shape in spec.weight_shapes().items()
    }
    weights["cell.weight"] *= INITIAL_SCALE
    weights["head.weight"] *= torch.tensor([[INITIAL_HEAD], [0.0]])
    return torch.cat([weight.flatten() for weight in weights.values()])
