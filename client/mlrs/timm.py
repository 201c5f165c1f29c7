"""The adapter for timm: a scheduler of its interface, whose schedule is a daemon's advice.

    from mlrs.timm import AdvisedLR

    scheduler = AdvisedLR(optimizer, "vit-imagenet", horizon=10_000)  # in updates
    num_updates = 0
    for inputs, targets in loader:
        loss = loss_fn(model(inputs), targets)
        scheduler.observe(loss)           # sends the loss and returns at once
        optimizer.zero_grad()
        loss.backward()                   # the round trip hides behind this
        optimizer.step()                  # waits for the advice, then updates with it
        num_updates += 1
        scheduler.step_update(num_updates)

Without `observe`, `scheduler.step_update(num_updates, metric=loss)` after the update sets the learning rate
of the next one: one step late, as timm's own schedulers are made.

timm itself is not imported.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, Unpack

import torch
from torch import nn
from torch.optim import Optimizer

from mlrs import Advisor, Run, SearchResult
from mlrs.adapters import TaskOptions, whole
from mlrs.errors import UsageError
from mlrs.torch import AdvisedLR as Scheduler

__all__ = ["AdvisedLR"]

P = ParamSpec("P")
SAVED = "mlrs"
"""The entry of the first parameter group, in a saved state of the optimizer, that holds the scheduler's."""


class AdvisedLR:
    """Sets the learning rate of each update to what a daemon advises, as a scheduler of timm's interface.

    The advice is the base value: a group's `lr_scale`, as layer-wise decay makes it, multiplies it, and
    groups of other initial learning rates keep their ratios.

    timm's checkpoints hold the optimizer, and not its scheduler. So the run, and its step, are saved in the
    state of the optimizer, and a training that loads that continues the run, before or after the scheduler is
    made.

    Args:
        optimizer: a PyTorch optimizer, as `timm.optim.create_optimizer_v2` returns it.
        task: the name of what is trained; see `Advisor.run`.
        advisor: the daemon. Default: the one that `mlrs.run` finds.
        accumulation_steps: as for `mlrs.torch.AdvisedLR`, as are the next four.
        lagged: never wait.
        signals: whether to send measures of the optimizer's steps.
        rescue: whether to ask for rescue.
        model: the model, if it has buffers that rescue is to put back, too.
        options: those of `Advisor.run`. `horizon` is in updates.

    Raises:
        InvalidArgumentError: an argument is wrong.
        MlrsError: as for `mlrs.torch.AdvisedLR`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        task: str,
        *,
        advisor: Advisor | None = None,
        accumulation_steps: int = 1,
        lagged: bool = False,
        signals: bool = True,
        rescue: bool = True,
        model: nn.Module | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        # timm's Lookahead calls no hooks, and holds the optimizer that does under this name.
        self.optimizer: Optimizer = getattr(optimizer, "_base_optimizer", optimizer)
        self._scheduler = Scheduler(
            self.optimizer,
            task,
            advisor=advisor,
            accumulation_steps=accumulation_steps,
            lagged=lagged,
            signals=signals,
            rescue=rescue,
            model=model,
            **options,
        )
        self._skipped: int | None = None  # updates that timm counts and the run does not have
        self._is_observed = False
        self._scale()
        self.optimizer.register_state_dict_post_hook(_weakly(self._save))
        self.optimizer.register_load_state_dict_post_hook(_weakly(self._resume))
        self._resume(self.optimizer)

    @property
    def run(self) -> Run | None:
        """The run; `None` on the ranks of a distributed job that do not talk to the daemon."""
        return self._scheduler.run

    def observe(self, loss: torch.Tensor | float | None, *, samples: float | None = None) -> None:
        """Send the training loss of the next update, or of one of its micro-batches, and return at once.

        Raises:
            InvalidArgumentError: the loss is no number.
            MlrsError: as for `mlrs.torch.AdvisedLR.observe`.
        """
        self._scheduler.observe(loss, samples=samples)
        self._is_observed = True

    def step_update(self, num_updates: int, metric: torch.Tensor | float | None = None) -> None:
        """End an update, or say how many there were before a training that continues.

        Args:
            num_updates: the number of updates so far, counted by the loop.
            metric: the training loss of this update, if it was not observed: the learning rate of the next
                update then comes from it. The loss itself, and no average of several updates.

        Raises:
            UsageError: another number of updates was expected; or neither this update's loss was observed
                nor is there a metric.
            MlrsError: as for `mlrs.torch.AdvisedLR.step`.
        """
        count = whole("num_updates", num_updates, low=0)
        if not self._is_observed and metric is None and self._skipped is None:
            self._skipped = count - self._scheduler.last_epoch
            return
        if self._skipped is None:
            self._skipped = 0
        if (expected := self._scheduler.last_epoch + 1 + self._skipped) != count:
            raise UsageError(
                f"step_update: num_updates is {count}, and {expected} was expected. Call it once an update;"
                " in a training that continues, call step_update(num_updates) before the first loss"
            )
        self._scheduler.step(None if self._is_observed else metric)
        self._is_observed = False

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Do nothing: learning rates are per update. Where timm calls this, nothing has to be left out."""

    def search(self, model: nn.Module, loss_fn: Any, batches: Any, **options: Any) -> SearchResult:
        """Find the learning rate to begin with, before the loop: see `mlrs.torch.AdvisedLR.search`."""
        return self._scheduler.search(model, loss_fn, batches, **options)

    def finish(
        self, *, metric: float | None = None, higher_is_better: bool = False, timeout_s: float | None = None
    ) -> None:
        """Mark the run as finished, once training is complete; see `Run.finish`."""
        self._scheduler.finish(metric=metric, higher_is_better=higher_is_better, timeout_s=timeout_s)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, the next step, the last advice and the initial LRs, as plain values."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state: with its run, which goes back to its step. On every rank.

        Raises:
            MlrsError: as for `mlrs.torch.AdvisedLR.load_state_dict`.
        """
        self._scheduler.load_state_dict(state_dict)
        self._skipped, self._is_observed = None, False

    def _scale(self) -> None:
        """Scale the learning rates before the first advice, as timm's schedulers do when they are made."""
        for group in self.optimizer.param_groups:
            rate = group["initial_lr"] * group.get("lr_scale", 1.0)
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else rate

    def _save(self, _optimizer: Optimizer, state: dict[str, Any]) -> None:
        state["param_groups"][0][SAVED] = self.state_dict()

    def _resume(self, optimizer: Optimizer) -> None:
        """Continue from the state that came with the optimizer's, if one did."""
        if (saved := optimizer.param_groups[0].pop(SAVED, None)) is not None:
            self.load_state_dict(saved)


def _weakly(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a method as long as its object lives, and does not keep it alive."""
    alive: weakref.WeakMethod[Callable[P, None]] = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if (still := alive()) is not None:
            still(*args, **kwargs)

    return call
