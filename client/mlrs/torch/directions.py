"""The update direction d of PyTorch's optimizers per unit of learning rate, computed without a step.

The next step would change the parameters from w to w - lr * d. Nothing here changes the optimizer's state.
The formulas are those of the documentation of `torch.optim`; the tests hold them against the real steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

from mlrs.errors import InvalidArgumentError
from mlrs.torch.shards import local, local_gradient

Group = dict[str, Any]
Rule = Callable[[torch.Tensor, torch.Tensor, dict[str, Any], Group], torch.Tensor]


def is_known(optimizer: Optimizer) -> bool:
    """Return whether the direction is known without a step: that of SGD, Adam and AdamW is."""
    return type(optimizer) in _RULES


@torch.no_grad()
def directions(optimizer: Optimizer, ratios: list[float]) -> dict[torch.Tensor, torch.Tensor]:
    """Return d of each parameter that has a gradient, or of this process's shard of it.

    Args:
        optimizer: SGD, with momentum of either kind or none, Adam or AdamW, with any settings.
        ratios: for each parameter group, its learning rate over the advised one.
    """
    rule = _RULES[type(optimizer)]
    found = {}
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        for parameter, gradient in _with_gradients(group):
            if group["maximize"]:
                gradient = -gradient  # noqa: PLW2901 # as the optimizer does
            state = optimizer.state.get(parameter, {})
            shards = {name: local(value) for name, value in state.items() if isinstance(value, torch.Tensor)}
            direction = rule(local(parameter), gradient, {**state, **shards}, group)
            found[parameter] = direction if ratio == 1.0 else direction * ratio
    return found


def _with_gradients(group: Group) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for parameter in group["params"]:
        gradient = parameter.grad
        if gradient is None:
            continue
        check_gradient(parameter, gradient)
        yield parameter, local_gradient(parameter, gradient)


def check_gradient(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    """Raise `InvalidArgumentError` for sparse and complex gradients."""
    what = f"optimizer: a parameter of shape {tuple(parameter.shape)}"
    if gradient.layout != torch.strided:
        error = f"{what} has a sparse gradient; use sparse=False in its layer"
    elif gradient.is_complex():
        error = f"{what} is complex; meta mode takes real ones"
    else:
        return
    raise InvalidArgumentError(error, field="optimizer")


def _sgd(
    parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: Group
) -> torch.Tensor:
    """G + weight_decay * w, then momentum: b = momentum * b + (1 - dampening) * g, and g + momentum * b."""
    if group["weight_decay"]:
        gradient = gradient.add(parameter, alpha=float(group["weight_decay"]))
    momentum = float(group["momentum"])
    if not momentum:
        return gradient.clone()
    buffer: torch.Tensor | None = state.get("momentum_buffer")
    if buffer is None:
        buffer = gradient
    else:
        buffer = buffer.mul(momentum).add(gradient, alpha=1.0 - float(group["dampening"]))
    return gradient.add(buffer, alpha=momentum) if group["nesterov"] else buffer.clone()


def _adam(
    parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: Group
) -> torch.Tensor:
    """M / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps), with the moments after this gradient.

    Weight decay is in the gradient, or decoupled: + weight_decay * w.
    """
    decay, decoupled = float(group["weight_decay"]), group.get("decoupled_weight_decay", False)
    if decay and not decoupled:
        gradient = gradient.add(parameter, alpha=decay)
    beta1, beta2 = (float(beta) for beta in group["betas"])
    step = float(state.get("step", 0.0)) + 1.0
    zeros = torch.zeros_like(parameter)
    mean: torch.Tensor = state.get("exp_avg", zeros).lerp(gradient, 1.0 - beta1)
    squares: torch.Tensor = (
        state.get("exp_avg_sq", zeros).mul(beta2).addcmul(gradient, gradient, value=1.0 - beta2)
    )
    if group["amsgrad"]:
        squares = torch.maximum(state.get("max_exp_avg_sq", zeros), squares)
    spread = squares.sqrt().div_((1.0 - beta2**step) ** 0.5).add_(float(group["eps"]))
    direction = mean.div_(1.0 - beta1**step).div_(spread)
    return direction.add_(parameter, alpha=decay) if decay and decoupled else direction


def _adamw(
    parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: Group
) -> torch.Tensor:
    return _adam(parameter, gradient, state, {**group, "decoupled_weight_decay": True})


_RULES: dict[type[Optimizer], Rule] = {SGD: _sgd, Adam: _adam, AdamW: _adamw}
