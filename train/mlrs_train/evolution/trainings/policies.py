"""Who chooses the learning rates of many copies: a population of networks, or fixed schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from mlrs_core.networks.drift.reference import DriftReference
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.shapes import cosine_share


class RatePolicy(Protocol):
    """Chooses the learning rates of `size` copies."""

    @property
    def size(self) -> int:
        """How many copies it advises."""
        ...

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        ...

    def advise(self, step: int, losses: Tensor) -> Tensor:
        """Return learning rates, (n,) float32, from the losses reported at this step, (n,)."""
        ...


class NetworkRates:
    """One network for all copies, or one for each: weights with an axis in front."""

    def __init__(
        self,
        reference: DriftReference,
        weights: Mapping[str, Tensor],
        size: int,
        starts: Tensor | None = None,
    ) -> None:
        """Take the weights, each as the architecture says or (size, ...).

        Args:
            reference: the network without them.
            weights: by name.
            size: copies.
            starts: the first rate of each copy over the default one, (size,), instead of the conditions'.
        """
        self.size = size
        self._starts = starts
        self._reference = reference
        self._weights = weights

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        self._state = self._reference.init_state(self.size)
        self._runs = conditions.runs(self.size, starts=self._starts)

    def advise(self, step: int, losses: Tensor) -> Tensor:
        """Return learning rates from the losses."""
        rates, self._state = self._reference.step(self._weights, self._state, losses, step, self._runs)
        return rates.float()


class ScheduleRates:
    """Fixed schedules, whatever the losses are, from multiples of the update rule's default rate."""

    def __init__(self, kinds: Sequence[tuple[str, float]]) -> None:
        """Take (shape, multiple) of each copy; the shapes are `constant` and `cosine`."""
        self.size = len(kinds)
        self._is_cosine = torch.tensor([shape == "cosine" for shape, _ in kinds])
        self._multiples = torch.tensor([multiple for _, multiple in kinds])

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions."""
        self._rates = self._multiples * conditions.default_lr
        self._horizon = conditions.horizon

    def advise(self, step: int, _losses: Tensor) -> Tensor:
        """Return the learning rates of this step."""
        share = cosine_share(step, self._horizon)
        return torch.where(self._is_cosine, self._rates * share, self._rates)


class SideBySide:
    """Several policies side by side, each for its own copies."""

    def __init__(self, policies: Sequence[RatePolicy]) -> None:
        """Take the policies, in the order of the copies."""
        self.size = sum(policy.size for policy in policies)
        self._policies = policies

    def begin(self, conditions: Conditions) -> None:
        """Start them all under these conditions."""
        for policy in self._policies:
            policy.begin(conditions)

    def advise(self, step: int, losses: Tensor) -> Tensor:
        """Return the learning rates of all copies."""
        parts = torch.split(losses, [policy.size for policy in self._policies])
        rates = [policy.advise(step, part) for policy, part in zip(self._policies, parts, strict=True)]
        return torch.cat(rates)
