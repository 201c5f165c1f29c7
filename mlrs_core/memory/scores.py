"""Measures of how runs ended as scores, which are lower where a run is better, and differ by shares.

A score that is 0.02 higher is a loss that is 2 % higher, whatever the loss is of. An accuracy counts by its
error, 1 minus it, and 2 % more: errors that are much smaller are a few examples. Other measures, which may be
negative, are taken in units of their own spread.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

LEAST = 1e-9
"""A loss below this counts as 0, which has no logarithm: then the least other loss is added to all."""
FEW = 0.02
"""What is added to the error of an accuracy."""
MOST = 700.0
"""The logarithm of about the largest double."""


@dataclass(frozen=True)
class Scale:
    """How values of one measure become scores."""

    kind: Literal["loss", "accuracy", "plain"]
    sign: float = 1.0
    """-1 where a higher value is better."""
    offset: float = 0.0
    """What is added to a loss or to an error before the logarithm."""
    unit: float = 1.0
    """Of a plain scale: the difference that counts as a factor of e."""

    @classmethod
    def of(cls, values: Sequence[float], *, higher_is_better: bool) -> Self:
        """Return the scale for some values, all finite."""
        if higher_is_better and all(0.0 <= value <= 1.0 for value in values):
            return cls("accuracy", offset=FEW)
        if not higher_is_better and all(value >= 0.0 for value in values):
            above = [value for value in values if value > LEAST]
            return cls("loss", offset=min(above, default=1.0) if len(above) < len(values) else 0.0)
        spread = max(values) - min(values) if values else 0.0
        unit = max(spread, max(map(abs, values), default=0.0) / 4) or 1.0
        return cls("plain", -1.0 if higher_is_better else 1.0, unit=min(unit, sys.float_info.max))

    @property
    def falls(self) -> bool:
        """Whether a higher value has a lower score."""
        return self.kind == "accuracy" or self.sign < 0.0

    def score(self, value: float) -> float:
        """Return the score of a value."""
        if self.kind == "accuracy":
            return math.log(1.0 - value + self.offset)
        if self.kind == "loss":
            return math.log(value + self.offset)
        return self.sign * value / self.unit

    def value(self, score: float) -> float:
        """Return the value of a score."""
        if self.kind == "accuracy":
            return 1.0 + self.offset - _exp(score)
        if self.kind == "loss":
            return _exp(score) - self.offset
        return self.sign * score * self.unit


def _exp(score: float) -> float:
    return math.exp(score) if score < MOST else math.inf
