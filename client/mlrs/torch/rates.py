"""Where `MetaStep` reads the learning rate of the next update, and where it sets another one."""

from __future__ import annotations

from typing import Protocol

from torch.optim import Optimizer

from mlrs.torch.optimizers import set_rates
from mlrs.torch.scheduler import AdvisedLR


class Rates(Protocol):
    """The learning rates of an optimizer's groups: the advised one, times the ratio of each group."""

    def current(self) -> tuple[float, list[float]]:
        """Return the advised learning rate, for which it waits, and the groups' ratios to it."""

    def fill(self, learning_rate: float) -> None:
        """Set another learning rate in the optimizer."""


class SchedulerRates:
    """The learning rates that an `AdvisedLR` sets."""

    def __init__(self, scheduler: AdvisedLR) -> None:
        self._scheduler = scheduler

    def current(self) -> tuple[float, list[float]]:
        """Return the advice of the present step; waits until its loss is sent, and for the advice."""
        scheduler = self._scheduler
        scheduler._hook.check()  # noqa: SLF001
        scheduler._apply()  # noqa: SLF001 # of the package's own scheduler, as all here
        if scheduler._unread:  # noqa: SLF001
            scheduler._unread[-1].result()  # noqa: SLF001
        ratios = scheduler._ratios()  # noqa: SLF001
        advised = scheduler._advised_lr  # noqa: SLF001
        if advised is None:  # no loss was observed yet, for which the caller raises
            advised = max(float(group["lr"]) for group in scheduler.optimizer.param_groups)
        return advised, ratios

    def fill(self, learning_rate: float) -> None:
        """Set another learning rate in the optimizer and the scheduler."""
        self._scheduler._advised_lr = learning_rate  # noqa: SLF001
        self._scheduler._fill(learning_rate)  # noqa: SLF001


class OptimizerRates:
    """The learning rates that the loop itself sets in the optimizer: the largest is the advised one."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def current(self) -> tuple[float, list[float]]:
        """Return the optimizer's learning rate and ratios."""
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        largest = max(rates)
        return largest, [rate / largest if largest else 1.0 for rate in rates]

    def fill(self, learning_rate: float) -> None:
        """Set another learning rate, at the same ratios."""
        _, ratios = self.current()
        set_rates(self._optimizer, learning_rate, ratios)
