"""A training as a user's PyTorch loop makes it whose daemon remembers the runs of its task."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from mlrs.torch import AdvisedLR
from mlrs_bench.methods.method import Training
from mlrs_bench.methods.served import TIMEOUT_S
from mlrs_bench.methods.validating import validation_loss, validation_steps

ExploreOption = Literal["careful", "full", False]
"""What a run may be used for."""


class Remembered:
    """A run of a task: it begins with what the memory says, or with a search, and tells how it ended."""

    held = 0

    def __init__(self, training: Training, *, explore: ExploreOption, keeps: bool) -> None:
        """Open the run, and search unless the memory has decided.

        Args:
            training: the training; its task's name is what the daemon remembers it by.
            explore: what the run may be used for.
            keeps: whether the run is remembered; otherwise it is deleted before it ends.
        """
        rule, task = training.rule, training.task
        self._training, self._keeps = training, keeps
        self._optimizer = rule.build(training.network.parameters(), rule.default_lr, training.weight_decay)
        self._run = training.advisor.run(
            task.name,
            id=training.run_id,
            horizon=task.horizon,
            batch_size=task.batch_size,
            num_classes=task.num_classes,
            optimizer=rule.kind,
            momentum=rule.momentum,
            explore=explore,
            fallback=None,  # a training that was not advised throughout is no result
            timeout_s=TIMEOUT_S,
        )
        self._scheduler = AdvisedLR(self._optimizer, self._run, model=training.network)

        def loss_fn(network: Any, batch: Any) -> torch.Tensor:
            inputs, targets = batch
            return task.loss(network(inputs), targets)

        training.network.train()
        result = self._scheduler.search(
            training.network, loss_fn, training.batches(), always=self._is_due(), charge_steps=True
        )
        self.spent = result.steps
        self._validated = validation_steps(task.horizon - self.spent)
        self._last_loss = math.nan

    @property
    def why(self) -> str:
        """What the memory said of the run."""
        return self._run.why

    def _is_due(self) -> bool:
        """Return whether a search is due though the horizon may be short."""
        recalled = self._run.config.recalled
        return recalled is None or not recalled.decided

    def observe(self, step: int, loss: float) -> None:
        """Send the loss, after the validation loss if one is due."""
        if step in self._validated:
            self._run.validate(step, validation_loss(self._training))
        self._scheduler.observe(loss)
        self._last_loss = loss

    def update(self) -> float:
        """Step with the advice; return its learning rate."""
        self._optimizer.step()
        self._scheduler.step()
        return float(self._optimizer.param_groups[0]["lr"])

    def finish(self, refresh: Callable[[], None]) -> None:  # noqa: ARG002  # its weights are those trained
        """Tell the validation loss at the end, as the run's metric; or delete the run."""
        if self._keeps:
            loss = validation_loss(self._training)
            known = math.isfinite(loss) and math.isfinite(self._last_loss)
            self._run.finish(metric=loss if known else None)
            return
        self._run.detach()
        self._training.advisor.delete_run(self._run.id)
