"""The alignment of a validation loss with an update direction, for a model of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.func import functional_call

from mlrs_client import InvalidArgumentError


class ValidationLoss(Protocol):
    """The validation loss of a batch, as users write it."""

    def __call__(self, model: Callable[..., Any], batch: Any, /) -> torch.Tensor:
        """Return it, a scalar with a graph; `model` is called as the model is, at other weights."""


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

    Products are summed in float64. The model is left as it is: its gradients, its weights, and its buffers,
    of which copies are used.

    Args:
        model: the model.
        loss_fn: its validation loss.
        batch: what `loss_fn` takes.
        weights: w', by the parameters' names; what is not here is the model's own.
        directions: d, likewise, of the same names.
        scale: what the loss is multiplied by under way, so that gradients in float16 do not vanish.

    Raises:
        InvalidArgumentError: `loss_fn` returns no scalar, or one that does not depend on the weights.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}

    def at_weights(*arguments: Any, **keywords: Any) -> Any:
        return functional_call(model, {**leaves, **buffers}, arguments, keywords)

    with torch.enable_grad():
        loss = loss_fn(at_weights, batch)
        _check(loss)
        gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            loss * scale, list(leaves.values()), allow_unused=True
        )
    products = [
        _product(gradient, directions[name])
        for name, gradient in zip(leaves, gradients, strict=True)
        if gradient is not None
    ]
    if not products:
        raise _independent()
    total = torch.stack([product.to(products[0].device) for product in products]).sum()
    return float(total) / scale, float(loss.detach())


def _product(gradient: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    return torch.sum(gradient.detach().double() * direction.double())


def _check(loss: object) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or loss.dim() != 0:
        shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise InvalidArgumentError(
            f"loss_fn must return a scalar tensor, as loss.mean() is; returned {shape}", field="loss_fn"
        )
    if not loss.requires_grad:
        raise _independent()


def _independent() -> InvalidArgumentError:
    return InvalidArgumentError(
        "loss_fn must call the model that it is given, with gradients: loss_fn(model, batch); its result does"
        " not depend on that model's weights",
        field="loss_fn",
    )
