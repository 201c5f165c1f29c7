"""Perceptrons of many shapes, on inputs whose scale spans two decades: so does their best rate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families.data import (
    VALID,
    Labelled,
    draw_count,
    mixture,
    packaged,
    split,
    teacher,
)
from mlrs_train.evolution.trainings.families.networks import (
    ACTIVATIONS,
    Activation,
    cross_entropy,
    mlp,
    mlp_params,
    squared_error,
)
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params

WIDTHS = (16, 32, 48)
"""The activations of hidden layers."""
BATCH_SIZES = (8, 16, 32, 64)
"""Examples in a batch."""


def teacher_mlp(draw: Draw) -> Problem:
    """Return a classifier of a random network's labels."""
    return _classifier(draw, teacher(draw))


def mixture_mlp(draw: Draw) -> Problem:
    """Return a classifier of a Gaussian mixture's components."""
    return _classifier(draw, mixture(draw))


def packaged_mlp(draw: Draw) -> Problem:
    """Return a classifier of wines, tumours or irises."""
    return _classifier(draw, packaged(draw))


def regression_mlp(draw: Draw) -> Problem:
    """Return a regression on a random network's outputs, of any scale."""
    features, outputs, width = draw.whole(4, 24), draw.whole(1, 3), draw.pick(WIDTHS)
    inputs = draw.normal(VALID + draw_count(draw, 5000), features)
    hidden = torch.tanh(inputs @ draw.normal(features, width) / features**0.5)
    clean = hidden @ draw.normal(width, outputs) / width**0.5
    targets = (clean + draw.log_uniform(0.01, 1) * draw.normal(*clean.shape)) * draw.log_uniform(0.03, 5)
    valid, train = Examples(inputs, targets).split((VALID, len(inputs) - VALID))
    return _perceptron(draw, train, valid, outputs, squared_error, None)


def deep_tanh(draw: Draw) -> Problem:
    """Return a deep, plain classifier of tanh units, which a learning rate too high by little ruins."""
    data = (teacher if draw.chance(0.5) else mixture)(draw)
    train, valid = split(draw, data)
    hidden = [draw.pick((16, 32))] * draw.pick((4, 5, 6))
    return _perceptron(draw, train, valid, data.classes, cross_entropy, data.classes, hidden, torch.tanh)


def waves(draw: Draw) -> Problem:
    """Return a regression of a sum of sines over one or two coordinates."""
    dimensions, count, terms = draw.whole(1, 2), VALID + draw_count(draw, 4000), draw.whole(1, 5)
    inputs = 2 * draw.rand(count, dimensions) - 1
    turns = draw.normal(dimensions, terms) * draw.uniform(1, 6)
    clean = torch.sin(inputs @ turns + 6 * draw.rand(terms)).sum(1, keepdim=True) / terms**0.5
    targets = clean + draw.log_uniform(0.01, 0.3) * draw.normal(count, 1)
    valid, train = Examples(inputs, targets).split((VALID, count - VALID))
    hidden = [draw.pick((32, 64))] * draw.pick((2, 3))
    activation = draw.pick((torch.tanh, torch.sin, torch.relu))
    return _perceptron(draw, train, valid, 1, squared_error, None, hidden, activation)


def _classifier(draw: Draw, data: Labelled) -> Problem:
    train, valid = split(draw, data)
    return _perceptron(draw, train, valid, data.classes, cross_entropy, data.classes)


def _perceptron(
    draw: Draw,
    train: Examples,
    valid: Examples,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    num_classes: int | None,
    hidden: list[int] | None = None,
    activation: Activation | None = None,
) -> Problem:
    """Return a problem around a perceptron of random scales and, unless given, random shape."""
    if hidden is None:
        hidden = [draw.pick(WIDTHS) for _ in range(draw.pick((0, 1, 1, 2, 2, 3)))]
    sizes = [train.inputs.shape[1], *hidden, outputs]
    activation = activation or draw.pick(ACTIVATIONS)
    scale, gain = draw.log_uniform(0.05, 5), draw.log_uniform(0.5, 2.5)

    def losses(params: Params, batch: Batch) -> Tensor:
        return loss(mlp(params, batch[0], len(sizes) - 1, activation), batch[1])

    return Problem(
        params=mlp_params(draw, sizes, gain=gain),
        losses=losses,
        train=Examples(train.inputs * scale, train.targets),
        valid=Examples(valid.inputs * scale, valid.targets),
        batch_size=draw.pick(BATCH_SIZES),
        num_classes=num_classes,
    )
