"""How phi learns from a population: perturbations in pairs, ranks, Adam, averaging.

With e_1 ... e_m standard normal, member i has the weights phi + sigma e_i, and member m + i has
phi - sigma e_i. With r their ranks in [-1/2, 1/2] (less is better), the gradient is estimated by

    g = s / (s + SPREAD) * 1 / 2m * sum_i (r_i - r_{m + i}) e_i

up to a factor that Adam does not see. s is the standard deviation of the log of what the members
reached: ranks say nothing of how much was at stake, and where all end alike nothing was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw

BETAS = (0.9, 0.99)
"""Adam's, on phi."""
SPREAD = 0.02
"""Where members differ by this share, their ranks count half."""


def antithetic(draw: Draw, pairs: int, size: int) -> Tensor:
    """Return perturbations, (2 pairs, size): standard normal rows, then the same with the other sign."""
    half = draw.normal(pairs, size)
    return torch.cat([half, -half])


def centered_ranks(values: Tensor) -> Tensor:
    """Return the ranks of some values, (n,), scaled to [-1/2, 1/2]; equal values share the middle."""
    below = (values[:, None] > values[None, :]).sum(1) + 0.5 * (values[:, None] == values[None, :]).sum(1)
    return (below - 0.5) / (len(values) - 1) - 0.5


def gradient(fitness: Tensor, perturbations: Tensor) -> Tensor:
    """Return the estimated gradient, (size,), from what each member reached, (n,), finite."""
    spread = torch.log(fitness.clamp(min=1e-7)).std()
    return spread / (spread + SPREAD) * (centered_ranks(fitness)[:, None] * perturbations).mean(0)


class EvolutionSearch:
    """phi under Adam, and its running average."""

    def __init__(self, phi: Tensor, *, averaging: float) -> None:
        """Start from some weights, (size,)."""
        self.phi = phi
        self.average = phi.clone()
        self.steps = 0
        self._averaging = averaging
        self.forget()

    def forget(self) -> None:
        """Drop the moments: the estimates to come are of another size."""
        self.first, self.second = torch.zeros_like(self.phi), torch.zeros_like(self.phi)
        self.age = 0

    def step(self, estimate: Tensor, lr: float) -> None:
        """Move phi against an estimated gradient."""
        self.steps += 1
        self.age += 1
        low, high = BETAS
        self.first = low * self.first + (1 - low) * estimate
        self.second = high * self.second + (1 - high) * estimate**2
        scale = (self.second / (1 - high**self.age)).sqrt() + 1e-12
        self.phi = self.phi - lr * self.first / (1 - low**self.age) / scale
        # A young average forgets faster: it would remember the start.
        keep = min(self._averaging, self.steps / (self.steps + 10))
        self.average = keep * self.average + (1 - keep) * self.phi

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("phi", "average", "first", "second", "steps", "age")
"""The attributes that are saved."""
