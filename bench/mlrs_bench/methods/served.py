"""Schedules and networks, served by a daemon: every LR comes over gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlrs
from mlrs_bench.methods.method import Training, set_lr

WARMUP_SHARE = 0.05
"""The share of the horizon in which schedules that decay warm up."""
TIMEOUT_S = 60.0
"""How long an advice may take: machines that train may be busy."""
DECAYING = ("cosine", "linear", "wsd")
"""The daemon's schedules that go down by themselves, and get a warmup."""


def scheduled(policy: str) -> Callable[[Training], AdvisedTraining]:
    """Return what builds the control by a schedule of the daemon's, from the training's base LR."""

    def control(training: Training) -> AdvisedTraining:
        settings: dict[str, Any] = {"policy": policy, "base_lr": training.base_lr}
        if policy in DECAYING:
            settings["warmup"] = math.ceil(WARMUP_SHARE * training.task.horizon)
        return AdvisedTraining(training, **settings)

    return control


def modelled(model: str) -> Callable[[Training], AdvisedTraining]:
    """Return what builds the control by a network of the daemon's."""

    def control(training: Training) -> AdvisedTraining:
        settings: dict[str, Any] = {"model": model}
        if training.start != 1.0:
            settings["initial_lr"] = training.start * training.rule.default_lr
        return AdvisedTraining(training, **settings)

    return control


def opened(training: Training, **settings: Any) -> mlrs.Run:
    """Return a new run of the daemon's for a training."""
    return training.advisor.run(
        training.task.name,
        id=training.run_id,
        num_classes=training.task.num_classes,
        optimizer=training.rule.kind,
        momentum=training.rule.momentum,
        memory=False,  # every training is a first one
        fallback=None,  # a training that was not advised throughout is no result
        timeout_s=TIMEOUT_S,
        **{"horizon": training.task.horizon, **settings},
    )


class AdvisedTraining:
    """The advice of a daemon, one round trip a step, hidden behind the backward pass."""

    def __init__(self, training: Training, **settings: Any) -> None:
        self.optimizer = training.optimizer()
        self.run = opened(training, **settings)
        self.step: Callable[[], object] = self.optimizer.step
        self._advisor = training.advisor
        self.held = self.spent = 0
        self._pending: mlrs.Pending | None = None

    def observe(self, step: int, loss: float) -> None:
        """Send the loss."""
        self._pending = self.run.observe(step, loss)

    def update(self) -> float:
        """Wait for the advice, and step with it; return the learning rate of the step."""
        assert self._pending is not None, "observe comes before update"  # noqa: S101  # a defect, not input
        advice = self._pending.advice(timeout_s=TIMEOUT_S)
        self.held += advice.reason is mlrs.AdviceReason.HELD
        set_lr(self.optimizer, advice.learning_rate)
        self.step()
        return float(self.optimizer.param_groups[0]["lr"])

    def finish(self, refresh: Callable[[], None]) -> None:  # noqa: ARG002  # its weights are those trained
        """Drop the run: what it was for is in the cell."""
        self.run.detach()
        self._advisor.delete_run(self.run.id)
