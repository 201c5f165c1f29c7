"""A new version of a model, averaged from the adapted weights of its runs.

    new = model + sum(run - model) / number of runs,  weight by weight

Each run has the same weight, however long it is (McMahan et al. 2017, algorithm 1, with equal shares; Nichol
et al. 2018, algorithm 2, with a step of size 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.adapting.protocol import Vector
from mlrs_core.models.model import Model

MAX_NAMED = 1000
"""The number of runs named in the provenance, the first by id. All runs are averaged."""


@dataclass(frozen=True)
class Contribution:
    """The contribution of a run to an average."""

    run_id: str
    """The run's id, without its tenant."""
    updates: int
    """The number of its meta updates."""
    next_step: int
    """The step that it expected when its weights were read."""
    relative_change: float
    """The Euclidean norm of its weights' difference from the model, over that of the model's weights."""


class WeightAverage:
    """Averages the weights of runs, added in the order of their ids; holds two vectors, however many runs.

    Weights are summed in double precision in that order, so the same runs give the same bits on any machine.
    """

    def __init__(self, policy: AdaptivePolicy) -> None:
        """Start without runs; `policy` is the model's, under any meta settings."""
        self._policy = policy
        first = policy.first_network()
        self.size = len(first) // 4
        """The number of weights of the network, which are the first of its entries."""
        self._model = first[: self.size].astype(np.float64)
        self._sum = np.zeros(self.size)
        self.named: list[Contribution] = []
        """The first `MAX_NAMED` contributions."""
        self.count = 0
        """The number of runs added."""
        self.updates = 0
        """The number of their meta updates, in all."""

    def add(self, run_id: str, updates: int, next_step: int, weights: Vector) -> None:
        """Add the weights of a run. A run whose weights equal the model's is not counted.

        Args:
            run_id: the run's id, without its tenant.
            updates: the number of its meta updates.
            next_step: the step that it expects.
            weights: its adapted weights, (size,) float32.
        """
        difference = weights - self._model
        if not difference.any():
            return
        self._sum += difference
        self.count += 1
        self.updates += updates
        if len(self.named) < MAX_NAMED:
            self.named.append(Contribution(run_id, updates, next_step, self._relative(difference)))

    def relative_change(self) -> float:
        """Return the relative change of the average, as in `Contribution`; there must be a run."""
        return self._relative(self._sum / self.count)

    def model(self, parent: Model, ref: str, asked: dict[str, Any]) -> Model:
        """Return the new version; there must be a run.

        Args:
            parent: the model.
            ref: its `name@digest`.
            asked: the conditions for runs, for the provenance.
        """
        network = np.zeros(4 * self.size, np.float32)
        network[: self.size] = self._model + self._sum / self.count
        provenance = {
            "method": "pooled",
            "parent": ref,
            **asked,
            "run_count": self.count,
            "updates": self.updates,
            "runs": [
                {"run_id": run.run_id, "updates": run.updates, "next_step": run.next_step}
                for run in self.named
            ],
            "versions": {"mlrs": version("mlrs")},
        }
        weights = self._policy.weights_of(network)
        return Model(architecture=parent.architecture, snapshots=weights, provenance=provenance)

    def _relative(self, difference: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        with np.errstate(divide="ignore"):
            return float(np.linalg.norm(difference) / np.linalg.norm(self._model))
