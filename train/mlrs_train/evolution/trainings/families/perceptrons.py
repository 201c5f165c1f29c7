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
    cross_entropy,
    mlp,
    mlp_params,
    squared_error,
)
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params

WIDTHS = (16, 32, 64)
"""The activations of hidden layers."""
BATCH_SIZES = (16, 32, 64, 128)
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
) -> Problem:
    """Return a problem around a perceptron of random shape and scales."""
    hidden = [draw.pick(WIDTHS) for _ in range(draw.pick((0, 1, 1, 2, 2, 3)))]
    sizes = [train.inputs.shape[1], *hidden, outputs]
    activation = draw.pick(ACTIVATIONS)
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
