"""A search for the learning rate to begin with, as a user's PyTorch loop makes it: `AdvisedLR.search`.

Afterwards the daemon is told losses, and what else the method says: signals and validation losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from mlrs.torch import AdvisedLR
from mlrs_bench.errors import BenchError
from mlrs_bench.methods.method import Training
from mlrs_bench.methods.served import DECAYING, WARMUP_SHARE, opened
from mlrs_bench.methods.validating import validation_loss, validation_steps


def searched(
    *, signals: bool = False, validations: bool = False, charged: bool = True, policy: str = ""
) -> Callable[[Training], Searched]:
    """Return what builds the control by a search.

    Args:
        signals: whether the daemon is sent measures of the optimizer's steps.
        validations: whether it is told validation losses, which are not charged.
        charged: whether the steps of the trials count, so that the training has so many fewer.
        policy: the schedule that follows, without rescue. Default: what the daemon chooses, with it.
    """

    def control(training: Training) -> Searched:
        settings: dict[str, Any] = {}
        if policy:
            settings["policy"] = policy
            settings["rescue"] = False
        if policy in DECAYING:
            settings["warmup"] = math.ceil(WARMUP_SHARE * training.task.horizon)
        if training.start != 1.0:
            settings["initial_lr"] = training.start * training.rule.default_lr
        return Searched(training, signals=signals, validations=validations, charged=charged, **settings)

    return control


class Searched:
    """A training that begins with a search; the adapter of PyTorch does all that concerns learning rates."""

    def __init__(
        self,
        training: Training,
        *,
        signals: bool,
        validations: bool,
        charged: bool,
        rescue: bool = True,
        **settings: Any,
    ) -> None:
        self._training = training
        self._optimizer = training.rule.build(
            training.network.parameters(), training.rule.default_lr, training.weight_decay
        )
        self._run = opened(training, **settings)
        self._scheduler = AdvisedLR(
            self._optimizer, self._run, signals=signals, rescue=rescue, model=training.network
        )
        measure = training.task.loss

        def loss_fn(network: Any, batch: Any) -> torch.Tensor:
            inputs, targets = batch
            return measure(network(inputs), targets)

        training.network.train()
        result = self._scheduler.search(
            training.network, loss_fn, training.batches(), always=True, charge_steps=charged
        )
        if result.learning_rate is None:
            raise BenchError(f"{training.run_id}: {result}")
        self.spent = result.steps if charged else 0
        self.held = 0
        steps = training.task.horizon - self.spent
        self._validated = validation_steps(steps) if validations else frozenset[int]()

    def observe(self, step: int, loss: float) -> None:
        """Send the loss, after the validation loss if one is due."""
        if step in self._validated:
            self._run.validate(step, validation_loss(self._training))
        self._scheduler.observe(loss)

    def update(self) -> float:
        """Step with the advice; return its learning rate."""
        self._optimizer.step()
        self._scheduler.step()
        return float(self._optimizer.param_groups[0]["lr"])

    def finish(self, refresh: Callable[[], None]) -> None:  # noqa: ARG002  # its weights are those trained
        """Drop the run."""
        self._run.detach()
        self._training.advisor.delete_run(self._run.id)
