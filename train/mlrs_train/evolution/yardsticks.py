"""The tasks held out from training, and the schedules that a network is compared with on them.

They have random numbers of their own, which do not depend on the training's seed. Each is trained
on once per validation under the network, and once ever under sixteen schedules: constant and cosine,
from eight learning rates around the default one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.engines.engine import Job, JobEngine
from mlrs_train.evolution.sample import HELD_OUT, draw_task, log_ratio, networks
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.trainings.policies import ScheduleRates
from mlrs_train.evolution.trainings.rollout import rollout

COUNT = 12
"""Tasks that are held out."""
MULTIPLES = (0.1, 0.32, 1.0, 3.2, 10.0, 32.0, 100.0, 320.0)
"""The learning rates of the schedules, in units of the update rule's default one."""
SCHEDULES = [(shape, multiple) for shape in ("cosine", "constant") for multiple in MULTIPLES]
"""The schedules."""
DEFAULT = SCHEDULES.index(("cosine", 1.0))
"""The one that needs no tuning."""


class Yardsticks:
    """What the schedules reach on the tasks that are held out."""

    def __init__(self, settings: EvolutionSettings) -> None:
        """Take the settings; nothing is computed before it is needed."""
        self._settings = settings
        self._reached: Tensor | None = None

    def compare(self, phi: Tensor, engine: JobEngine) -> dict[str, float]:
        """Return log-ratios of a network to the schedules: below 0, the network is better.

        Args:
            phi: its weights, (weights,).
            engine: what computes the tasks.

        Raises:
            EngineError: a task failed, or no worker survived it.
        """
        jobs = [self._job(number, phi) for number in range(COUNT)]
        if self._reached is None:
            jobs += [self._job(number, None) for number in range(COUNT)]
        values = engine.compute(jobs)
        ours = torch.cat(values[:COUNT])
        reached = torch.stack(values[COUNT:]) if self._reached is None else self._reached
        self._reached = reached
        to_best = log_ratio(ours, reached.min(1).values)
        return {
            "held_out_to_default": float(log_ratio(ours, reached[:, DEFAULT]).median()),
            "held_out_to_best": float(to_best.median()),
            "held_out_to_best_mean": float(to_best.mean()),
            "held_out_to_best_worst": float(to_best.max()),
        }

    def _job(self, number: int, phi: Tensor | None) -> Job[Tensor]:
        who = "the schedules" if phi is None else "the network"
        return Job(f"Held-out task {number} under {who}", held_out, (self._settings, number, phi))

    def state_dict(self) -> dict[str, Any]:
        """Return what took time to compute."""
        return {"reached": self._reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what was computed before."""
        self._reached = state["reached"]


def held_out(settings: EvolutionSettings, number: int, phi: Tensor | None) -> Tensor:
    """Train on one held-out task: always from the same weights, on the same batches.

    Args:
        settings: of the training.
        number: the number of the task.
        phi: the weights of a network, (weights,); `None`: under all the schedules.

    Returns:
        What the objective makes of the network, (1,), or of each schedule, (schedules,).
    """
    families = list(choose_families(settings.families).values())
    draw = Draw(HELD_OUT, number, 0)
    problem, conditions = draw_task(draw, families[number % len(families)], settings)
    policy = ScheduleRates(SCHEDULES) if phi is None else networks(settings.architecture(), phi[None])
    return rollout(problem, conditions, policy, Draw(HELD_OUT, number, 1), settings.objective)
