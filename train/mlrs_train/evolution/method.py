"""The algorithm: phi moves by what populations around it reach on random tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from mlrs_core.models.model import Model
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.engines.engine import Job, JobEngine
from mlrs_train.evolution.engines.in_process import InThisProcess
from mlrs_train.evolution.estimator import EvolutionSearch
from mlrs_train.evolution.sample import START, draw_sample, unpack
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.yardsticks import Yardsticks
from mlrs_train.method import LogRecord

T = TypeVar("T")

INITIAL_SCALE = 0.03
"""The standard deviation of the first weights."""


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
        self.yardsticks = Yardsticks(settings)
        self.steps_done = 0
        self.elapsed_s = 0.0
        self._log_ratios: list[float] = []

    @property
    def steps_total(self) -> int:
        """Updates in all; an estimate until the end where time is what is limited."""
        if self.settings.updates is not None:
            return self.settings.updates
        done = self.steps_done
        return done if self._share >= 1 else max(done + 1, round(done / max(self._share, 1e-9)))

    @property
    def _share(self) -> float:
        """The share of the training that is over."""
        if self.settings.minutes is not None:
            return self.elapsed_s / (60 * self.settings.minutes)
        return self.steps_done / (self.settings.updates or 1)

    def advance(self) -> LogRecord | None:
        """Make one update of phi; return a record when one is due.

        Raises:
            EngineError: a task failed, or no worker survived it.
        """
        began, lr = time.monotonic(), self.meta_lr()
        samples = self._compute(draw_sample, self.search.phi)
        self.search.step(torch.stack([sample.estimate for sample in samples]).mean(0), lr)
        self._log_ratios += [sample.log_ratio for sample in samples]
        self.steps_done += 1
        self.elapsed_s += time.monotonic() - began
        return self._record(lr)

    def _compute(self, function: Callable[..., T], phi: Tensor) -> list[T]:
        """Return what each task of this update says about phi."""
        update, arguments = self.steps_done, (self.settings, phi, self.steps_done)
        return self.engine.compute(
            [
                Job(f"Task {index} of update {update} (counted from 0)", function, (*arguments, index))
                for index in range(self.tasks_now())
            ]
        )

    def meta_lr(self) -> float:
        """Return Adam's learning rate on phi: down along a line."""
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
        ratios, self._log_ratios = torch.tensor(self._log_ratios), []
        values = {"to_search": float(ratios.median()), "meta_lr": lr}
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
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.search.load_state_dict(state["search"])
        self.yardsticks.load_state_dict(state["yardsticks"])
        self.steps_done = state["steps_done"]
        self.elapsed_s = state["elapsed_s"]
        self._log_ratios = list(state["log_ratios"])

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
    """Return the first weights: small and random, biases 0, so that the network hardly corrects anything."""
    shapes = settings.architecture().weight_shapes()
    draw = Draw(START, settings.seed)
    parts = [
        torch.zeros(shape) if name.endswith("bias") else INITIAL_SCALE * draw.normal(*shape)
        for name, shape in shapes.items()
    ]
    return torch.cat([part.flatten() for part in parts])
