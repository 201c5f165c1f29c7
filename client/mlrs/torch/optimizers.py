"""What a run is told of an optimizer, and how its learning rates are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from mlrs.adapters import OTHER, adam_of, sgd_of
from mlrs.torch.hook import unwrapped


def describe(optimizer: Optimizer) -> dict[str, Any]:
    """Return the `optimizer` and the `momentum` of a run's config, read off an optimizer.

    PyTorch's SGD, Adam and AdamW are recognized, with their subclasses; any other optimizer is `other`,
    without momentum. The first parameter group stands for all. Wrapped optimizers, such as Accelerate's,
    are unwrapped.
    """
    optimizer = unwrapped(optimizer)
    group = optimizer.param_groups[0]
    if isinstance(optimizer, (Adam, AdamW)):
        decoupled = isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay", False)
        return adam_of(group["betas"][0], decoupled=decoupled)
    if isinstance(optimizer, SGD):
        return sgd_of(group["momentum"], nesterov=group["nesterov"])
    return dict(OTHER)


def set_rates(optimizer: Optimizer, learning_rate: float, ratios: Sequence[float]) -> None:
    """Set the learning rate of each parameter group to one times its ratio; tensors are filled in place."""
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate * ratio)
        else:
            group["lr"] = learning_rate * ratio
