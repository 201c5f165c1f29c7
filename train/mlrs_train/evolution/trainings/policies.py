"""Who chooses the learning rates of many copies: a population of networks, or fixed schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mlrs_core.networks.tail.constants import FEATURES
from mlrs_core.networks.tail.kernel import advance_each
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.networks.tail.table import constants_table
from mlrs_core.policy import COLUMNS, NO_SIGNALS, SIGNALS
from mlrs_train.evolution.trainings.conditions import Conditions

VALIDATION = COLUMNS.index("validation_loss")


@dataclass(frozen=True)
class Shown:
    """What n copies observed at one step."""

    losses: Tensor
    """(n,), finite."""
    signals: Tensor | None = None
    """What came with them, (n, len(COLUMNS)) float64; NaN: not sent. `None`: nothing came."""


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

    def advise(self, step: int, shown: Shown) -> Tensor:
        """Return learning rates, (n,) float32, from what was shown at this step."""
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
    """A network for each copy: the compiled kernel, under as many sets of weights."""

    def __init__(self, spec: TailSpec, rows: Tensor, views: Views) -> None:
        """Take the weights, (size, weights) in the order of `weight_shapes`; one row is for all."""
        self.size = len(views)
        self.sees = bool(views.signals.any()), bool(views.validations.any())
        self._spec = spec
        self._views = views
        self._constants = constants_table(spec.constants)
        self._weights = np.ascontiguousarray(_packed(spec, rows).expand(self.size, -1).float().numpy())
        columns = torch.zeros(self.size, len(COLUMNS), dtype=torch.bool)
        columns[:, : len(SIGNALS)], columns[:, VALIDATION] = views.signals[:, None], views.validations
        self._columns = columns

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        self._states = np.zeros((self.size, self._spec.state_size), np.float32)
        self._table = conditions.runs(self._views.starts, self._views.octaves)

    def advise(self, step: int, shown: Shown) -> Tensor:
        """Return learning rates from what was shown."""
        signals, lrs = NO_SIGNALS, np.empty(self.size)
        if shown.signals is not None:
            signals = torch.where(self._columns, shown.signals, torch.nan).numpy()
        losses = shown.losses.double().numpy()
        advance_each(self._states, self._table, step, losses, signals, lrs, self._weights, self._constants)
        return torch.from_numpy(lrs).float()


def _packed(spec: TailSpec, rows: Tensor) -> Tensor:
    """Return weights, (n, weights), in the order in which the kernel reads them; see `networks/cell.py`."""
    hidden = spec.hidden_size
    parts = torch.split(rows, [math.prod(shape) for shape in spec.weight_shapes().values()], dim=1)
    cell = parts[0].reshape(-1, 4 * hidden, FEATURES + hidden).transpose(1, 2).flatten(1)
    head = torch.cat([parts[2].reshape(-1, 2, hidden), parts[3][:, :, None]], dim=2).flatten(1)
    return torch.cat([cell, parts[1], head], dim=1)


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

    def advise(self, step: int, shown: Shown) -> Tensor:
        """Return the learning rates of this step."""
        del shown
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

    def advise(self, step: int, shown: Shown) -> Tensor:
        """Return the learning rates of all copies."""
        rates, begin = [], 0
        for policy in self._policies:
            part = slice(begin, begin + policy.size)
            signals = None if shown.signals is None else shown.signals[part]
            rates.append(policy.advise(step, Shown(shown.losses[part], signals)))
            begin += policy.size
        return torch.cat(rates)
