"""Learning rates on one axis, in octaves, whatever the momentum, the horizon and the batch size of their run.

A rate is carried to another horizon by (T / T0)**-0.32 (Bjorck et al. 2024, arXiv 2409.19913), and to another
batch size in proportion to its square root; under SGD in proportion to it, up to a factor of four (Goyal et
al. 2017, arXiv 1706.02677, and McCandlish et al. 2018, arXiv 1812.06162).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlrs_core.config import Optimizer
from mlrs_core.config.default_rates import ADAM_FAMILY, DEFAULT_MOMENTUM, MAX_MOMENTUM, MOMENTUM_FAMILY

OF_HORIZON = -0.32
"""The exponent of the horizon."""
MOST_LINEAR = 2.0
"""The octaves of the batch size up to which a rate of SGD grows in proportion to it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a learning rate is for, besides the task."""

    optimizer: Optimizer
    momentum: float | None
    horizon: int
    batch_size: int | None
    """`None`: not known, and then rates are not carried by it."""

    @property
    def family(self) -> str:
        """The optimizers among which learning rates are comparable."""
        if self.optimizer in (Optimizer.SGD, *MOMENTUM_FAMILY):
            return "sgd"
        if self.optimizer in (Optimizer.ADAM, Optimizer.ADAMW):
            return "adam"
        return self.optimizer.name.lower()


def octave(learning_rate: float, of: Setting, at: Setting) -> float:
    """Return where a learning rate of one setting lies on the axis of another."""
    return math.log2(learning_rate) + _momentum(of) + _carried(of, at)


def rate(octave_: float, at: Setting) -> float:
    """Return the learning rate that lies at an octave of a setting's axis."""
    return float(2.0 ** (octave_ - _momentum(at)))


def _momentum(setting: Setting) -> float:
    """Return the octaves by which momentum makes the steps of SGD longer: those of 1 / (1 - momentum)."""
    if setting.optimizer not in MOMENTUM_FAMILY:
        return 0.0
    momentum = DEFAULT_MOMENTUM if setting.momentum is None else setting.momentum
    return -math.log2(1.0 - min(momentum, MAX_MOMENTUM))


def _carried(of: Setting, at: Setting) -> float:
    """Return the octaves by which a learning rate changes from one horizon and batch size to another."""
    octaves = OF_HORIZON * math.log2(at.horizon / of.horizon)
    if of.batch_size is not None and at.batch_size is not None:
        grown = math.log2(at.batch_size / of.batch_size)
        if at.optimizer in ADAM_FAMILY:
            octaves += grown / 2
        else:
            octaves += max(-MOST_LINEAR, min(grown, MOST_LINEAR))
    return octaves
