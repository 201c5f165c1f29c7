"""A number for how a training went: its validation losses at some steps, averaged and capped.

The cap makes a training that diverged as bad as one that ends at four times the loss it began with,
and no worse: one that explodes to 1e30 says nothing more. NaN counts as the cap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_train.evolution.settings import Objective

CAP = 4.0
"""The largest loss, in units of the loss before the first step."""
WINDOW_POINTS = 5
"""Where the validation loss is taken in the last tenth of a training."""
AREA_POINTS = 16
"""Where it is taken in a whole training."""


@dataclass(frozen=True)
class Outcomes:
    """How some copies of a base model ended, each (n,), finite; less is better."""

    judged: Tensor
    """What the objective makes of each, on examples that none was trained on."""
    trained: Tensor
    """The training loss after the last step."""

    def fitness(self, *, validated: bool) -> Tensor:
        """Return what networks are to minimise, (n,): `validated`, if they are shown validation losses.

        Nothing else shows overfitting. Without them it is the geometric mean of both losses, or the network
        would take every rate for too high, since some tasks overfit and none gains by too low a rate.
        """
        if validated:
            return self.judged
        return torch.sqrt(self.judged.clamp(min=0) * self.trained.clamp(min=0))


def evaluation_steps(objective: Objective, horizon: int) -> frozenset[int]:
    """Return after which steps, 1 to `horizon`, the validation loss is taken."""
    match objective:
        case "final":
            fractions = [1.0]
        case "window":
            fractions = [0.9 + 0.1 * (k + 1) / WINDOW_POINTS for k in range(WINDOW_POINTS)]
        case "area":
            fractions = [(k + 1) / AREA_POINTS for k in range(AREA_POINTS)]
    return frozenset(max(1, round(fraction * horizon)) for fraction in fractions)


def capped(losses: Tensor, initial: Tensor) -> Tensor:
    """Return losses, (n,) or (k, n), finite and at most `CAP` times the initial ones, (n,)."""
    limit = (CAP * initial).nan_to_num(nan=CAP, posinf=CAP).expand_as(losses)
    return torch.where(losses.isfinite(), torch.minimum(losses, limit), limit)
