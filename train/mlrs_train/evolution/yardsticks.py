"""The tasks held out from training, and the schedules that a network is compared with on them.

They have random numbers of their own, which do not depend on the training's seed. Each is trained
on once per validation under the network, and once ever under twelve schedules: constant and cosine,
from six learning rates around the usual one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlrs_train.evolution.conditions import Conditions
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.families import choose_families
from mlrs_train.evolution.policies import Policy, Schedules
from mlrs_train.evolution.problem import Problem
from mlrs_train.evolution.rollout import rollout
from mlrs_train.evolution.sample import HELD_OUT, draw_task, log_ratio, networks
from mlrs_train.evolution.settings import EvolutionSettings

COUNT = 12
"""Tasks that are held out."""
MULTIPLES = (0.1, 0.32, 1.0, 3.2, 10.0, 32.0)
"""The learning rates of the schedules, in units of the update rule's usual one."""
SCHEDULES = [(shape, multiple) for shape in ("cosine", "constant") for multiple in MULTIPLES]
"""The schedules."""
DEFAULT = SCHEDULES.index(("cosine", 1.0))
"""The one that needs no tuning."""


@dataclass(frozen=True)
class _Task:
    """A task that is held out."""

    problem: Problem
    conditions: Conditions
    number: int

    def run(self, policy: Policy, settings: EvolutionSettings) -> Tensor:
        """Train under a policy: always from the same weights, on the same batches."""
        return rollout(
            self.problem, self.conditions, policy, Draw(HELD_OUT, self.number, 1), settings.objective
        )


class Yardsticks:
    """The tasks that are held out, and what the schedules reach on them."""

    def __init__(self, settings: EvolutionSettings) -> None:
        """Take the settings; tasks are drawn when first needed."""
        self._settings = settings
        self._tasks: list[_Task] = []
        self._reached: Tensor | None = None

    def compare(self, phi: Tensor) -> dict[str, float]:
        """Return log-ratios of a network to the schedules: below 0, the network is better.

        Args:
            phi: its weights, (weights,).
        """
        if not self._tasks:
            self._tasks = [self._draw(number) for number in range(COUNT)]
        if self._reached is None:
            self._reached = torch.stack(
                [task.run(Schedules(SCHEDULES), self._settings) for task in self._tasks]
            )
        policy = networks(self._settings.architecture(), phi[None])
        ours = torch.cat([task.run(policy, self._settings) for task in self._tasks])
        to_best = log_ratio(ours, self._reached.min(1).values)
        return {
            "held_out_to_default": float(log_ratio(ours, self._reached[:, DEFAULT]).median()),
            "held_out_to_best": float(to_best.median()),
            "held_out_to_best_mean": float(to_best.mean()),
            "held_out_to_best_worst": float(to_best.max()),
        }

    def _draw(self, number: int) -> _Task:
        families = list(choose_families(self._settings.families).values())
        draw = Draw(HELD_OUT, number, 0)
        return _Task(*draw_task(draw, families[number % len(families)], self._settings), number)

    def state_dict(self) -> dict[str, Any]:
        """Return what took time to compute."""
        return {"reached": self._reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what was computed before."""
        self._reached = state["reached"]
