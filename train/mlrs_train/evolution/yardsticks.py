"""The tasks held out from training, and the schedules that a network is compared with on them.

They have random numbers of their own, which do not depend on the training's seed. Each is trained on once per
validation under the network, in each of a few views, and once ever under many schedules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.engines.engine import Job, JobEngine
from mlrs_train.evolution.groups import OCTAVES, draw_found
from mlrs_train.evolution.sample import HELD_OUT, draw_task, log_ratio
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.trainings.policies import SHAPES, NetworkRates, RatePolicy, ScheduleRates, Views
from mlrs_train.evolution.trainings.rollout import rollout
from mlrs_train.evolution.trainings.starts import best_start

EACH = 2
"""Tasks of each family that are held out."""
MULTIPLES = tuple(10 ** (0.375 * index) for index in range(-5, 10))
"""The learning rates of the schedules, in units of the update rule's default one."""
VIEWS = {
    "all": (True, True, True),
    "signals": (True, True, False),
    "losses": (True, False, False),
    "alone": (False, False, False),
}
"""Whether the network starts where a search might lead, is shown signals, and is shown validation losses."""
MOST = 3.0
"""A log-ratio counts within this and its negative."""


class Yardsticks:
    """What the schedules reach on the tasks that are held out."""

    def __init__(self, settings: EvolutionSettings) -> None:
        """Take the settings; nothing is computed before it is needed."""
        self._settings = settings
        self._count = EACH * len(choose_families(settings.families))
        self._reached: Tensor | None = None

    def compare(self, phi: Tensor, engine: JobEngine) -> dict[str, float]:
        """Return log-ratios of a network to the best schedule on each task: below 0, the network is better.

        Args:
            phi: its weights, (weights,).
            engine: what computes the tasks.

        Raises:
            EngineError: a task failed, or no worker survived it.
        """
        jobs = [self._job(number, phi) for number in range(self._count)]
        if self._reached is None:
            jobs += [self._job(number, None) for number in range(self._count)]
        values = engine.compute(jobs)
        ours = torch.stack(values[: self._count])
        reached = torch.stack(values[self._count :]) if self._reached is None else self._reached
        self._reached = reached
        best = reached.min(1).values
        ratios = {name: log_ratio(ours[:, index], best) for index, name in enumerate(VIEWS)}
        ratios["schedule"] = log_ratio(reached[:, -1], best)
        values_by_name: dict[str, float] = {}
        for name, ratio in ratios.items():
            values_by_name[f"held_out_{name}"] = float(ratio.median())
            values_by_name[f"held_out_{name}_mean"] = float(ratio.clamp(-MOST, MOST).mean())
        return values_by_name

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
        What the objective makes of the network in each view, (views,), or of each schedule, (schedules + 1,),
        the last one being that which the network corrects, from there.
    """
    families = list(choose_families(settings.families).values())
    draw = Draw(HELD_OUT, number, 0)
    problem, conditions = draw_task(draw, families[number % len(families)], settings)
    start = draw_found(draw, best_start(problem, conditions, draw))
    if phi is None:
        base_lrs = [multiple * conditions.default_lr for multiple in MULTIPLES]
        shapes = [shape for shape in SHAPES for _ in MULTIPLES]
        starts = torch.tensor([*base_lrs * len(SHAPES), start])
        policy: RatePolicy = ScheduleRates([*shapes, "wsd"], starts)
    else:
        views = [
            Views.of(
                1,
                start if searched else math.nan,
                OCTAVES if searched else math.nan,
                signals=signals,
                validations=validations,
            )
            for searched, signals, validations in VIEWS.values()
        ]
        policy = NetworkRates(settings.architecture(), phi[None], Views.joined(views))
    return rollout(problem, conditions, policy, Draw(HELD_OUT, number, 1), settings.objective).judged
