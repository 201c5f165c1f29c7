"""The learning rate that a training loop is about to use, and where another goes: `MetaStep` asks both."""

from __future__ import annotations

from typing import Protocol

from torch.optim import Optimizer

from mlrs.torch.scheduler import AdvisedLR, set_rates


class Rates(Protocol):
    """The learning rates of an optimizer's groups: one that was advised, times a ratio each."""

    def current(self) -> tuple[float, list[float]]:
        """Return the advised learning rate, once it is here, and the groups' ratios to it."""

    def fill(self, learning_rate: float) -> None:
        """Have the optimizer go on with another."""


class SchedulerRates:
    """Those that an `AdvisedLR` sets."""

    def __init__(self, scheduler: AdvisedLR) -> None:
        self._scheduler = scheduler

    def current(self) -> tuple[float, list[float]]:
        """Return the advice of the step that is open; waits until its loss was sent, and for the advice."""
        scheduler = self._scheduler
        scheduler._hook.check()  # noqa: SLF001
        scheduler._apply()  # noqa: SLF001 # of the package's own scheduler, as all here
        if scheduler._unread:  # noqa: SLF001
            scheduler._unread[-1].result()  # noqa: SLF001
        ratios = scheduler._ratios()  # noqa: SLF001
        advised = scheduler._advised_lr  # noqa: SLF001
        if advised is None:  # no step yet: the caller is about to find out
            advised = max(float(group["lr"]) for group in scheduler.optimizer.param_groups)
        return advised, ratios

    def fill(self, learning_rate: float) -> None:
        """Have the optimizer go on with another, and the scheduler with it."""
        self._scheduler._advised_lr = learning_rate  # noqa: SLF001
        self._scheduler._fill(learning_rate)  # noqa: SLF001


class OptimizerRates:
    """Those that the loop itself puts into the optimizer: the largest is the advised one."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def current(self) -> tuple[float, list[float]]:
        """Return what is in the optimizer."""
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        largest = max(rates)
        return largest, [rate / largest if largest else 1.0 for rate in rates]

    def fill(self, learning_rate: float) -> None:
        """Put another in, at the same ratios."""
        _, ratios = self.current()
        set_rates(self._optimizer, learning_rate, ratios)
