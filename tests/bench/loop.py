"""A training loop in double precision that keeps what an oracle needs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import mlrs
from mlrs_bench.methods import Control, Training
from mlrs_bench.rules import RULES
from mlrs_bench.task import Task
from mlrs_bench.training import draw_batches, first_network

SEED = 100
"""Of the weights and the batches."""


class Loop:
    """The loop, with its losses, LRs and gradients."""

    def __init__(
        self, task: Task, optimizer: str, advisor: mlrs.Advisor, base_lr: float | None = None
    ) -> None:
        """Take a task and the name of an optimizer; `training` is what a control is built of."""
        self.training = Training(
            task=task,
            rule=RULES[optimizer],
            network=first_network(task, SEED).double(),
            valid=task.load().valid,
            batches=lambda: map(self._train.take, self._batches),
            seed=SEED,
            base_lr=base_lr,
            start=1.0,
            run_id="none",
            advisor=advisor,
        )
        self.losses: list[float] = []
        self.lrs: list[float] = []
        self.gradients: list[list[Tensor]] = []
        self._parameters = dict(self.training.network.named_parameters())
        self._train = task.load().train
        self._batches = draw_batches(task, len(self._train), SEED)

    def step(self, control: Control) -> float:
        """Do the next step, and return its LR."""
        step = len(self.losses)
        loss = self._loss(step, self._parameters)
        self.losses.append(loss.item())
        control.observe(step, loss.item())
        gradients = torch.autograd.grad(loss, list(self._parameters.values()))
        self.gradients.append([each.clone() for each in gradients])
        for parameter, gradient in zip(self._parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        self.lrs.append(control.update())
        return self.lrs[-1]

    def weights(self) -> list[Tensor]:
        """Return a copy of the weights."""
        return [each.detach().clone() for each in self._parameters.values()]

    def mean_gradients(self, keep: float) -> list[Tensor]:
        """Return the exponential averages of the gradients so far, without their bias."""
        count = len(self.gradients)
        shares = [(1 - keep) * keep ** (count - 1 - step) / (1 - keep**count) for step in range(count)]
        return [
            torch.stack([share * each for share, each in zip(shares, of_one, strict=True)]).sum(0)
            for of_one in zip(*self.gradients, strict=True)
        ]

    def derivative(self, weights: list[Tensor], directions: list[Tensor], lr: float) -> float:
        """Return the derivative of the next loss, at weights - lr * directions, with respect to lr."""
        rate = torch.tensor(lr, dtype=torch.float64, requires_grad=True)
        moved = [weight - rate * direction for weight, direction in zip(weights, directions, strict=True)]
        loss = self._loss(len(self.losses), dict(zip(self._parameters, moved, strict=True)))
        return torch.autograd.grad(loss, rate)[0].item()

    def _loss(self, step: int, weights: Mapping[str, Tensor]) -> Tensor:
        rows = self._batches[step]
        inputs = (self._train.inputs[rows].double(),)
        outputs = torch.func.functional_call(self.training.network, dict(weights), inputs)
        return self.training.task.loss(outputs, self._train.targets[rows])
