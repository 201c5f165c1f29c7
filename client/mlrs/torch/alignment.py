"""The alignment of a validation loss with an update direction, for a PyTorch model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.func import functional_call

from mlrs.errors import InvalidArgumentError
from mlrs.torch.shards import local_gradient, mesh_of, moved, shard_count


class ValidationLoss(Protocol):
    """The validation loss of a batch, as users write it."""

    def __call__(self, model: Callable[..., Any], batch: Any, /) -> torch.Tensor:
        """Return the loss, a scalar with a graph; `model` is the model at other weights."""


def inner(model: nn.Module) -> nn.Module:
    """Return the model that a wrapper for several processes or devices, or a compiled one, holds."""
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        return inner(model.module)
    return model


def aligned(
    model: nn.Module,
    loss_fn: ValidationLoss,
    batch: Any,
    weights: Mapping[str, torch.Tensor],
    directions: Mapping[str, torch.Tensor],
    scale: float = 1.0,
) -> tuple[float, float]:
    """Return <gradient of the validation loss at some weights, d>, and that loss.

    Products are summed in float64. The model's gradients, weights and buffers do not change. For parameters
    that are sharded over processes, this process's shards are used and the result is multiplied by the number
    of shards: the mean over the processes is the alignment.

    Args:
        model: the model.
        loss_fn: its validation loss.
        batch: what `loss_fn` takes.
        weights: w', by the parameters' names, or this process's shards of it. Other parameters keep the
            model's weights.
        directions: d of the same names and shapes.
        scale: the factor of the loss in the backward pass, so that gradients in float16 do not underflow.

    Raises:
        InvalidArgumentError: `loss_fn` returns no scalar, or one that does not depend on the weights.
    """
    backward = _spread_gradients if mesh_of(model) is not None else _gradients
    loss, gradients = backward(model, loss_fn, batch, weights, scale)
    parameters = dict(model.named_parameters())
    products = [
        _product(gradient, directions[name]) * shard_count(parameters[name])
        for name, gradient in gradients.items()
        if gradient is not None
    ]
    if not products:
        raise _independent()
    total = torch.stack([product.to(products[0].device) for product in products]).sum()
    return float(total) / scale, float(loss.detach())


Gradients = tuple[torch.Tensor, dict[str, torch.Tensor | None]]
"""A loss, and its gradients by the parameters' names; `None`: it does not depend on the parameter."""


def _gradients(
    model: nn.Module, loss_fn: ValidationLoss, batch: Any, weights: Mapping[str, torch.Tensor], scale: float
) -> Gradients:
    """Return the loss at some weights, and its gradients times `scale`, without touching the model."""
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        loss = _checked(loss_fn(_calling(model, leaves), batch))
        gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            loss * scale, list(leaves.values()), allow_unused=True
        )
    return loss, dict(zip(leaves, gradients, strict=True))


def _spread_gradients(
    model: nn.Module, loss_fn: ValidationLoss, batch: Any, weights: Mapping[str, torch.Tensor], scale: float
) -> Gradients:
    """Return what `_gradients` does for a model with sharded parameters, whose `grad` FSDP fills."""
    with moved(model, weights) as parameters, torch.enable_grad():
        loss = _checked(loss_fn(_calling(model, {}), batch))
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        return loss, {
            name: None if weight.grad is None else local_gradient(weight, weight.grad)
            for name, weight in parameters.items()
        }


def _calling(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
    """Return a function that calls the model at some weights, with copies of its buffers."""
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}

    def at_weights(*arguments: Any, **keywords: Any) -> Any:
        return functional_call(model, {**weights, **buffers}, arguments, keywords)

    return at_weights


def _product(gradient: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    return torch.sum(gradient.detach().double() * direction.double())


def _checked(loss: object) -> torch.Tensor:
    """Return a loss that is a scalar with a graph."""
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.dim() != 0:
        shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise InvalidArgumentError(
            f"loss_fn must return a scalar tensor, as loss.mean() is; returned {shape}", field="loss_fn"
        )
    if not loss.requires_grad:
        raise _independent()
    return loss


def _independent() -> InvalidArgumentError:
    return InvalidArgumentError(
        "loss_fn must call the model that it is given, with gradients: loss_fn(model, batch); its result does"
        " not depend on that model's weights",
        field="loss_fn",
    )
