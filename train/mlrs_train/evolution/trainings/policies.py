"""Who chooses the learning rates of many copies: a population of networks, or fixed schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mlrs_core.networks.tail.reference import Observed, TailReference
from mlrs_train.evolution.trainings.conditions import Conditions


class RatePolicy(Protocol):
    """Chooses the learning rates of `size` copies."""

    @property
    def size(self) -> int:
        """How many copies it advises."""
        ...

    @property
    def sees(self) -> tuple[bool, bool]:
        """Whether any copy's advice depends on signals, and on validation losses."""
        ...

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        ...

    def advise(self, step: int, observed: Observed) -> Tensor:
        """Return learning rates, (n,) float32, from what was observed at this step."""
        ...


@dataclass(frozen=True, kw_only=True)
class Views:
    """Where the copies of a network start, and what they are shown, each (n,)."""

    starts: Tensor
    """Learning rates; NaN: the default one."""
    octaves: Tensor
    """The uncertainty of a search; NaN: there was none."""
    signals: Tensor
    """Whether they are shown signals."""
    validations: Tensor
    """Whether they are shown validation losses."""

    def __len__(self) -> int:
        """Return the number of copies."""
        return len(self.starts)

    @classmethod
    def joined(cls, views: Sequence[Views]) -> Views:
        """Return the views of some groups of copies, side by side."""
        names = ("starts", "octaves", "signals", "validations")
        return cls(**{name: torch.cat([getattr(one, name) for one in views]) for name in names})

    @classmethod
    def of(cls, n: int, start: float, octaves: float, *, signals: bool, validations: bool) -> Views:
        """Return the same view for n copies."""
        return cls(
            starts=torch.full((n,), start, dtype=torch.float64),
            octaves=torch.full((n,), octaves, dtype=torch.float64),
            signals=torch.full((n,), signals),
            validations=torch.full((n,), validations),
        )


class NetworkRates:
    """One network for all copies, or one for each: weights with an axis in front."""

    def __init__(self, reference: TailReference, weights: Mapping[str, Tensor], views: Views) -> None:
        """Take the weights, each as the architecture says or (size, ...)."""
        self.size = len(views)
        self.sees = bool(views.signals.any()), bool(views.validations.any())
        self._views = views
        self._reference = reference
        self._weights = weights

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        self._state = self._reference.init_state(self.size)
        self._runs = conditions.runs(self._views.starts, self._views.octaves)

    def advise(self, step: int, observed: Observed) -> Tensor:
        """Return learning rates from what was observed."""
        signals, validations = observed.signals, observed.validations
        if signals is not None:
            signals = torch.where(self._views.signals[:, None], signals, torch.nan)
        if validations is not None:
            validations = torch.where(self._views.validations, validations, torch.nan)
        shown = Observed(observed.losses, signals, validations)
        rates, self._state = self._reference.step(self._weights, self._state, shown, step, self._runs)
        return rates.float()


SHAPES = ("wsd", "linear", "cosine")
"""The schedules that networks are compared with; all warm up over the first 5 % of the horizon."""
WARMUP = 0.05
COOLDOWN = 0.2


class ScheduleRates:
    """Fixed schedules, whatever is observed."""

    sees = (False, False)

    def __init__(self, shapes: Sequence[str], base_lrs: Tensor) -> None:
        """Take the shape of each copy, of `SHAPES`, and the learning rates they multiply, (n,)."""
        self.size = len(shapes)
        self._base_lrs = base_lrs.float()
        self._shapes = torch.tensor([SHAPES.index(shape) for shape in shapes])

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions."""
        self._horizon = conditions.horizon

    def advise(self, step: int, observed: Observed) -> Tensor:
        """Return the learning rates of this step."""
        del observed
        horizon = float(self._horizon)
        left = torch.tensor(1 - step / horizon)
        end = (left / COOLDOWN).clamp(max=1.0)
        shares = torch.stack([end / (1 + torch.sqrt(1 - end)), left, (1 - torch.cos(torch.pi * left)) / 2])
        return self._base_lrs * min(1.0, (step + 1) / max(1.0, WARMUP * horizon)) * shares[self._shapes]


class SideBySide:
    """Several policies side by side, each for its own copies."""

    def __init__(self, policies: Sequence[RatePolicy]) -> None:
        """Take the policies, in the order of the copies."""
        self.size = sum(policy.size for policy in policies)
        self.sees = any(policy.sees[0] for policy in policies), any(policy.sees[1] for policy in policies)
        self._policies = policies

    def begin(self, conditions: Conditions) -> None:
        """Start them all under these conditions."""
        for policy in self._policies:
            policy.begin(conditions)

    def advise(self, step: int, observed: Observed) -> Tensor:
        """Return the learning rates of all copies."""
        rates, begin = [], 0
        for policy in self._policies:
            part = slice(begin, begin + policy.size)
            signals, validations = observed.signals, observed.validations
            shown = Observed(
                observed.losses[part],
                None if signals is None else signals[part],
                None if validations is None else validations[part],
            )
            rates.append(policy.advise(step, shown))
            begin += policy.size
        return torch.cat(rates)
