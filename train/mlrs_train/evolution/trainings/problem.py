"""What a task is: data, and the losses of many copies of a base model at once.

Copies have one axis in front, n. All start from the same weights and see the same batches; what
makes them differ is their learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mlrs_train.tasks import Batch, Examples, Params

Losses = Callable[[Params, Batch], Tensor]
"""Maps parameters, each (n, ...), and one batch to the mean loss of each copy, (n,), differentiable.
No copy's loss may depend on another's parameters."""


COMPARED_ON = 512
"""The most training examples that the training loss is taken on."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A base model, its initial weights and its data."""

    params: Params
    """The initial weights, without an axis for copies."""
    losses: Losses
    """The loss."""
    train: Examples
    """What is trained on."""
    valid: Examples
    """What the result is judged on."""
    batch_size: int
    """Examples in a batch."""
    num_classes: int | None
    """C of a cross-entropy in nats; `None` for other losses."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """s of each parameter, 1 where not given: what is trained is v, with weights s v. The same model, but its
    best learning rate is 1 / s^2 times as large under SGD, and 1 / s times under Adam."""

    @property
    def log_classes(self) -> float:
        """Return ln C, NaN without C."""
        return math.nan if self.num_classes is None else math.log(self.num_classes)

    def copies(self, n: int) -> Tensor:
        """Return what is trained of n copies, before the first step, as rows, (n, weights) float32."""
        row = torch.cat([tensor.flatten() for tensor in self.params.values()])
        if self._row_scales is not None:
            row = row / self._row_scales
        return row.expand(n, -1).clone()

    def unpack(self, rows: Tensor) -> Params:
        """Return the parameters that some rows stand for, each (n, ...)."""
        if self._row_scales is not None:
            rows = rows * self._row_scales
        # One split, whose gradient is one concatenation: slices would add up a whole row each.
        parts = torch.split(rows, [tensor.numel() for tensor in self.params.values()], dim=1)
        return {
            name: part.view(len(rows), *tensor.shape)
            for (name, tensor), part in zip(self.params.items(), parts, strict=True)
        }

    @cached_property
    def _row_scales(self) -> Tensor | None:
        """The scale of each weight, (weights,); `None` where all are 1."""
        if not self.scales:
            return None
        return torch.cat(
            [
                torch.full((tensor.numel(),), self.scales.get(name, 1.0))
                for name, tensor in self.params.items()
            ]
        )

    @cached_property
    def tensors(self) -> Tensor:
        """Which weight is in which tensor of two and more dimensions, (weights, tensors) of 0 and 1.

        Without any such tensor, all count.
        """
        wide = any(tensor.dim() > 1 for tensor in self.params.values())
        counted = [tensor.dim() > 1 or not wide for tensor in self.params.values()]
        sizes = torch.tensor([tensor.numel() for tensor in self.params.values()])
        indicators = torch.repeat_interleave(torch.eye(len(sizes)), sizes, dim=0)
        return indicators[:, torch.tensor(counted)]

    def evaluate(self, rows: Tensor, part: slice = slice(None)) -> Tensor:
        """Return the losses of some copies, (n,), on the examples that are not trained on, or a part."""
        with torch.no_grad():
            return self.losses(self.unpack(rows), (self.valid.inputs[part], self.valid.targets[part]))

    def training_losses(self, rows: Tensor) -> Tensor:
        """Return the losses of some copies, (n,), on the first `COMPARED_ON` examples that are trained on."""
        with torch.no_grad():
            examples = self.train.inputs[:COMPARED_ON], self.train.targets[:COMPARED_ON]
            return self.losses(self.unpack(rows), examples)

    @property
    def shown(self) -> slice:
        """The half of `valid` whose losses a policy may be shown."""
        return slice(len(self.valid) // 2)

    @property
    def judged(self) -> slice:
        """The half of `valid` that a result is judged on."""
        return slice(len(self.valid) // 2, None)

    def value_and_grad(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses of some copies on a batch, (n,), and their gradients, (n, weights)."""
        with torch.enable_grad():
            leaf = rows.detach().requires_grad_()
            losses = self.losses(self.unpack(leaf), batch)
            (gradients,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradients


def batched(loss: Callable[[Params, Batch], Tensor]) -> Losses:
    """Return the losses of many copies from the loss of one, a scalar.

    Saves thinking about the axis of the copies; losses written with it are often faster.
    """
    mapped: Losses = torch.vmap(loss, in_dims=(0, None))
    return mapped
