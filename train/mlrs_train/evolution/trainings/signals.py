"""What the optimizers of many copies tell of a step: the signals of `mlrs_core.policy.SIGNALS`."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_core.policy import COLUMNS
from mlrs_train.evolution.trainings.problem import Problem

DENSE_STEPS, EVERY = 100, 8
"""Signals are taken at the first steps but step 0, then at every so many, as `mlrs.torch` does."""


def is_taken(step: int) -> bool:
    """Return whether signals are taken at a step."""
    return step < DENSE_STEPS or step % EVERY == 0


class SignalMeter:
    """Takes the signals of the steps of some copies."""

    def __init__(self, problem: Problem) -> None:
        """Start before the first step."""
        self._tensors = problem.tensors
        self._before: Tensor | None = None

    def take(self, step: int, rows: Tensor, gradients: Tensor, updates: Tensor) -> Tensor | None:
        """Return the signals of a step, (n, len(COLUMNS)) float64; `None` where none are taken.

        Args:
            step: from 0.
            rows: the weights after it, (n, weights).
            gradients: as the optimizer saw them.
            updates: what was added to the weights.
        """
        before, self._before = self._before, updates
        if before is None or not is_taken(step):
            return None
        tensors = self._tensors.to(rows.dtype)
        sizes, moves = (rows * rows) @ tensors, (updates * updates) @ tensors
        relative = 0.5 * (torch.log(moves + 1e-24) - torch.log(sizes + 1e-24)).mean(1)
        numbers = {
            "update_norm2": updates.square().sum(1),
            "param_norm2": rows.square().sum(1),
            "grad_norm2": gradients.square().sum(1),
            "grad_dot_update": (gradients * updates).sum(1),
            "grad_dot_previous_update": (gradients * before).sum(1),
            "log_relative_update": relative,
        }
        taken = torch.full((len(rows), len(COLUMNS)), torch.nan, dtype=torch.float64)
        for name, values in numbers.items():
            taken[:, COLUMNS.index(name)] = values
        return taken
