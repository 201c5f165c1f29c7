"""A new version of a model, of what its runs have learnt: the model plus the mean of their differences.

    new = model + sum(run - model) / number of runs,  weight by weight

One run has one voice, however long it is (McMahan et al. 2017, algorithm 1, with equal shares; Nichol et al.
2018, algorithm 2, with a step of size 1).
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
"""So many runs are named, the first by id; all count."""


@dataclass(frozen=True)
class Contribution:
    """What a run gave."""

    run_id: str
    """As its tenant writes it."""
    updates: int
    """Its meta updates so far."""
    next_step: int
    """The step that it expected."""
    relative_change: float
    """How far it went: the Euclidean norm of the difference over that of the model's weights."""


class WeightAverage:
    """Takes runs in, one after another in the order of their ids; holds two vectors, whatever their number.

    Sums are of doubles, weight by weight, so the same runs give the same bits on any machine.
    """

    def __init__(self, policy: AdaptivePolicy) -> None:
        """Begin without a run; `policy` is the model's, under any meta settings."""
        self._policy = policy
        first = policy.first_network()
        self.size = len(first) // 4
        """How many of a network's entries are its weights, which come first."""
        self._model = first[: self.size].astype(np.float64)
        self._sum = np.zeros(self.size)
        self.named: list[Contribution] = []
        """The first of what was taken in."""
        self.count = 0
        """How many runs were."""
        self.updates = 0
        """How many meta updates they had together."""

    def add(self, run_id: str, updates: int, next_step: int, weights: Vector) -> None:
        """Take in what a run has learnt: nothing if its weights are the model's, and then it does not count.

        Args:
            run_id: as its tenant writes it.
            updates: its meta updates so far.
            next_step: the step that it expects.
            weights: its own, (size,).
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
        """Return how far the new version is from the model, as in `Contribution`; there is a run."""
        return self._relative(self._sum / self.count)

    def model(self, parent: Model, ref: str, asked: dict[str, Any]) -> Model:
        """Return the new version; there is a run.

        Args:
            parent: the model.
            ref: its `name@digest`.
            asked: what was asked of runs, for the provenance.
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
