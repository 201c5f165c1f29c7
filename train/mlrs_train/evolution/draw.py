"""Random numbers, from a key of integers: equal keys give equal draws, other keys unrelated ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class Draw:
    """A source of random numbers and tensors."""

    def __init__(self, *key: int) -> None:
        """Seed it with a key."""
        sequence = np.random.SeedSequence(key)
        numbers, tensors = sequence.spawn(2)
        self.numbers = np.random.default_rng(numbers)
        self.tensors = torch.Generator().manual_seed(int(tensors.generate_state(1, np.uint64)[0] >> 1))

    def chance(self, probability: float) -> bool:
        """Return true with this probability."""
        return bool(self.numbers.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return float(self.numbers.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high) whose logarithm is uniform."""
        return math.exp(self.numbers.uniform(math.log(low), math.log(high)))

    def whole(self, low: int, high: int) -> int:
        """Return a whole number, low to high."""
        return int(self.numbers.integers(low, high + 1))

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Return one of some options, each as likely as its weight says."""
        shares = None if weights is None else np.array(weights) / sum(weights)
        return options[int(self.numbers.choice(len(options), p=shares))]

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32 numbers."""
        return torch.randn(shape, generator=self.tensors)

    def rand(self, *shape: int) -> Tensor:
        """Return float32 numbers in [0, 1)."""
        return torch.rand(shape, generator=self.tensors)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64 numbers, 0 to high - 1."""
        return torch.randint(high, shape, generator=self.tensors)
