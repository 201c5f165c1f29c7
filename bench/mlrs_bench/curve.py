"""Curves of at most a few points, collected step by step."""

from __future__ import annotations

from mlrs_bench.cell import Points

POINTS = 40
"""The most points of a curve."""


class Curves:
    """The training losses and the LRs of a training."""

    def __init__(self, horizon: int) -> None:
        """Take the number of steps."""
        self._every = -(-horizon // POINTS)
        self._horizon = horizon
        self._sum, self._count = 0.0, 0
        self._losses: list[tuple[int, float]] = []
        self._lrs: list[tuple[int, float]] = []

    def add(self, step: int, loss: float, lr: float) -> None:
        """Take the finite loss of a step and the LR of its update."""
        self._sum += loss
        self._count += 1
        if (step + 1) % self._every == 0 or step + 1 == self._horizon:
            self._losses.append((step, float(f"{self._sum / self._count:.6g}")))
            self._lrs.append((step, float(f"{lr:.6g}")))
            self._sum, self._count = 0.0, 0

    @property
    def losses(self) -> Points:
        """The mean losses since the last point."""
        return tuple(self._losses)

    @property
    def lrs(self) -> Points:
        """The LRs."""
        return tuple(self._lrs)
