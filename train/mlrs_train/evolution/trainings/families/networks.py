"""Pieces of base models, for many copies at once: parameters and activations are (n, ...)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.tasks import Params

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: tuple[Activation, ...] = (torch.relu, torch.tanh, torch.nn.functional.gelu)
"""The activations that tasks draw from."""


def dense_params(draw: Draw, name: str, inputs: int, outputs: int, *, gain: float = 1.0) -> Params:
    """Return a dense layer's parameters: normal weights of variance gain^2 / inputs, no bias."""
    weight = draw.normal(inputs, outputs) * (gain / math.sqrt(inputs))
    return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outputs)}


def dense(params: Params, name: str, inputs: Tensor) -> Tensor:
    """Return a dense layer's outputs, (n, rows, outputs), from (n, rows, inputs) or (rows, inputs)."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    shared = inputs.expand(len(weight), -1, -1)
    return torch.baddbmm(bias.unsqueeze(1), shared, weight)


def mlp_params(draw: Draw, sizes: Sequence[int], *, gain: float) -> Params:
    """Return a perceptron's parameters; `sizes` begins with the inputs and ends with the outputs."""
    params: Params = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        params |= dense_params(draw, f"dense.{layer}", inputs, outputs, gain=gain)
    return params


def mlp(params: Params, inputs: Tensor, layers: int, activation: Activation) -> Tensor:
    """Return a perceptron's outputs, (n, rows, outputs)."""
    for layer in range(layers):
        inputs = dense(params, f"dense.{layer}", inputs)
        if layer + 1 < layers:
            inputs = activation(inputs)
    return inputs


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of each copy, (n,), from logits (n, rows, C) and targets (rows,)."""
    # With the few classes in the last dimension, torch's softmax takes five times as long.
    scores = torch.log_softmax(logits.transpose(1, 2).contiguous(), 1)
    index = targets.expand(len(logits), -1).unsqueeze(1)
    return -scores.gather(1, index).squeeze(1).mean(1)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of each copy, (n,), from (n, rows, k) and (rows, k)."""
    return (outputs - targets).square().mean((1, 2))
