"""The algorithm: phi moves by what populations around it reach on random tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from mlrs_core.models.model import Model
from mlrs_train.evolution.cloning.lessons import collect
from mlrs_train.evolution.cloning.study import Study
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

STUDY = 4
"""The first number of the key of the random numbers that choose batches."""
INITIAL_SCALE = 0.05
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
        self.study = Study(settings.architecture()) if settings.cloned else None
        self.steps_done = 0
        self.elapsed_s = 0.0
        self._share_cloned = 0.0
        self._log_ratios: list[float] = []
        self._regrets: list[float] = []

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
        if self.steps_done == self.settings.cloned:
            self.search.forget()
            self.study = None
            self._share_cloned = self._share
        if self.study is not None:
            self._learn(self.study, lr)
        else:
            samples = self._compute(draw_sample, self.search.phi)
            self.search.step(torch.stack([sample.estimate for sample in samples]).mean(0), lr)
            self._log_ratios += [sample.log_ratio for sample in samples]
        self.steps_done += 1
        self.elapsed_s += time.monotonic() - began
        return self._record(lr)

    def _learn(self, study: Study, lr: float) -> None:
        """Collect lessons, and make some steps on all that there are."""
        lessons = self._compute(collect, self.search.average)
        study.add(lessons)
        self._log_ratios += [lesson.log_ratio for lesson in lessons]
        self._regrets += [lesson.regret for lesson in lessons]
        draw = Draw(STUDY, self.settings.seed, self.steps_done)
        for _ in range(self.settings.cloning_steps):
            self.search.step(study.gradient(self.search.phi, draw), lr)

    def _compute(self, function: Callable[..., T], phi: Tensor) -> list[T]:
        """Return what each task of this update says about phi."""
        update, arguments = self.steps_done, (self.settings, phi, self.steps_done)
        return self.engine.compute(
            [
                Job(f"Task {index} of update {update} (counted from 0)", function, (*arguments, index))
                for index in range(self.settings.tasks_per_update)
            ]
        )

    def meta_lr(self) -> float:
        """Return Adam's learning rate on phi: down along a line while cloning, along another after it."""
        cloning = self.settings.cloned
        if self.steps_done < cloning:
            return self.settings.cloning_lr * (1 - 0.95 * self.steps_done / cloning)
        before = self._share_cloned if self.steps_done > cloning else self._share
        share = (min(self._share, 1.0) - before) / max(1 - before, 1e-9)
        return self.settings.meta_lr + max(share, 0.0) * (self.settings.final_meta_lr - self.settings.meta_lr)

    def _record(self, lr: float) -> LogRecord | None:
        """Return a record if one is due: now and then, and at the end."""
        validates = self.steps_done == self.steps_total or self.steps_done % self.settings.validate_every == 0
        if not (validates or self.steps_done % self.settings.log_every == 0):
            return None
        ratios, self._log_ratios = torch.tensor(self._log_ratios), []
        values = {"to_default": float(ratios.median()), "meta_lr": lr}
        if self._regrets:
            regrets, self._regrets = self._regrets, []
            values["cloning_regret"] = math.fsum(regrets) / len(regrets)
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
            "study": None if self.study is None else self.study.state_dict(),
            "steps_done": self.steps_done,
            "elapsed_s": self.elapsed_s,
            "share_cloned": self._share_cloned,
            "log_ratios": list(self._log_ratios),
            "regrets": list(self._regrets),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.search.load_state_dict(state["search"])
        self.yardsticks.load_state_dict(state["yardsticks"])
        if state["study"] is None:
            self.study = None
        elif self.study is not None:
            self.study.load_state_dict(state["study"])
        self.steps_done = state["steps_done"]
        self.elapsed_s = state["elapsed_s"]
        self._share_cloned = state["share_cloned"]
        self._log_ratios = list(state["log_ratios"])
        self._regrets = list(state["regrets"])

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
    """Return the first weights: small and random, biases 0, so that the network aims at the default rate.

    The head adds its own constant to the gate, so that a zero opens it almost fully.
    """
    shapes = settings.architecture().weight_shapes()
    draw = Draw(START, settings.seed)
    parts = [
        torch.zeros(shape) if name.endswith("bias") else INITIAL_SCALE * draw.normal(*shape)
        for name, shape in shapes.items()
    ]
    return torch.cat([part.flatten() for part in parts])
