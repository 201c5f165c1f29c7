"""What a run is told of an optimizer, and how its learning rates are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

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
        return {"optimizer": "adamw" if decoupled else "adam", "momentum": _momentum(group["betas"][0])}
    if isinstance(optimizer, SGD):
        momentum = _momentum(group["momentum"])
        kind = "sgd" if momentum == 0.0 else "nesterov" if group["nesterov"] else "momentum"
        return {"optimizer": kind, "momentum": momentum}
    return {"optimizer": "other", "momentum": None}


def set_rates(optimizer: Optimizer, learning_rate: float, ratios: Sequence[float]) -> None:
    """Set the learning rate of each parameter group to one times its ratio; tensors are filled in place."""
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate * ratio)
        else:
            group["lr"] = learning_rate * ratio


def _momentum(value: Any) -> float | None:
    """Return a momentum within the contract's range, [0, 1), else `None`."""
    momentum = float(value)
    return momentum if 0.0 <= momentum < 1.0 else None
