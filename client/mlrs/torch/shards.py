"""Parameters that are sharded over processes by `fully_shard` (FSDP2): this process's shards of them.

Such a parameter is a `DTensor`. Update directions and dot products are computed from local shards. Only the
validation loss communicates: its passes gather parameters and reduce gradients, as in training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from mlrs.errors import InvalidArgumentError


def mesh_of(model: nn.Module) -> Any:
    """Return the `DeviceMesh` of sharded parameters; `None`: no parameter is sharded."""
    return next((cast("Any", one).device_mesh for one in model.parameters() if is_spread(one)), None)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of a tensor, or the whole tensor if it is not sharded."""
    return cast("Any", tensor).to_local() if is_spread(tensor) else tensor


def local_gradient(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient of this process's shard of a parameter."""
    if is_spread(gradient):
        gradient = cast("Any", gradient).redistribute(placements=cast("Any", parameter).placements)
    return local(gradient)


def shard_count(parameter: torch.Tensor) -> int:
    """Return the number of shards of a parameter; 1: every process has the whole parameter.

    The mean over the processes of (a shard's sum times this number) is the whole parameter's sum.
    """
    if not is_spread(parameter):
        return 1
    spread: Any = parameter
    return math.prod(
        spread.device_mesh.size(dimension)
        for dimension, placement in enumerate(spread.placements)
        if placement.is_shard()
    )


def reshard(model: nn.Module) -> None:
    """Reshard the model's parameters, which a forward pass without a backward pass leaves unsharded."""
    for module in model.modules():
        if hasattr(module, "_fsdp_wrapped_module"):
            raise InvalidArgumentError(
                "model is a FullyShardedDataParallel; use fully_shard(model), which replaces it",
                field="model",
            )
        if hasattr(module, "unshard") and hasattr(module, "reshard"):  # an FSDPModule
            cast("Any", module).reshard()


@contextmanager
def moved(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Set a model's shards to other weights and its gradients to `None`; restore all at the end, bit for bit.

    Args:
        model: the model.
        weights: the shards of some parameters, by their names.

    Yields:
        These parameters, whose `grad` a backward pass fills.
    """
    reshard(model)
    parameters = dict(model.named_parameters())
    kept = {name: local(parameters[name]).detach().clone() for name in weights}
    gradients = {weight: weight.grad for weight in parameters.values()}
    try:
        for weight in gradients:
            weight.grad = None
        _fill(parameters, weights)
        yield {name: parameters[name] for name in weights}
    finally:
        reshard(model)
        _fill(parameters, kept)
        for weight, gradient in gradients.items():
            weight.grad = gradient


@torch.no_grad()
def _fill(parameters: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        local(parameters[name]).copy_(weight)


def is_spread(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is sharded, or replicated by the same means: a `DTensor`."""
    return hasattr(tensor, "device_mesh")
