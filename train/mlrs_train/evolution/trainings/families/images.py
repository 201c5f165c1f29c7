"""Small convolutional networks and an autoencoder, on generated images: gratings and blobs, 12 by 12."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families.data import Labelled, draw_count, split
from mlrs_train.evolution.trainings.families.networks import (
    cross_entropy,
    dense,
    dense_params,
    mlp,
    mlp_params,
    squared_error,
)
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params

SIDE = 12
"""Pixels along a side."""
VALID, MOST = 256, 1200
"""Images that a result is judged on, and the most that are trained on."""


def cnn(draw: Draw) -> Problem:
    """Return a classifier of images with two convolutions."""
    return _convolutional(draw, normalised=False)


def cnn_batch_norm(draw: Draw) -> Problem:
    """Return the same with batch normalisation, by the statistics of each batch."""
    return _convolutional(draw, normalised=True)


def autoencoder(draw: Draw) -> Problem:
    """Return an autoencoder of images: the mean squared error through a bottleneck."""
    images = _images(draw).inputs.flatten(1) * draw.log_uniform(0.1, 3)
    sizes = [SIDE**2, draw.pick((24, 48)), draw.pick((4, 8, 16)), draw.pick((24, 48)), SIDE**2]
    activation = draw.pick((torch.relu, torch.tanh))

    def losses(params: Params, batch: Batch) -> Tensor:
        return squared_error(mlp(params, batch[0], len(sizes) - 1, activation), batch[1])

    valid, train = Examples(images, images).split((VALID, len(images) - VALID))
    return Problem(
        params=mlp_params(draw, sizes, gain=draw.log_uniform(0.7, 1.5)),
        losses=losses,
        train=train,
        valid=valid,
        batch_size=draw.pick((16, 32, 64)),
        num_classes=None,
    )


def _images(draw: Draw) -> Labelled:
    """Return noisy images, (n, 1, SIDE, SIDE): gratings or pairs of blobs, different for each class."""
    classes, count = draw.whole(3, 8), VALID + draw_count(draw, MOST)
    labels = draw.integers(classes, count)
    kind = _gratings if draw.chance(0.5) else _blobs
    images = kind(draw, labels, classes) + draw.log_uniform(0.1, 1.5) * draw.normal(count, SIDE, SIDE)
    images = (images - images.mean()) / images.std()
    return Labelled(images[:, None], labels, classes, VALID)


def _gratings(draw: Draw, labels: Tensor, classes: int) -> Tensor:
    """Return waves of random phase; a class is a direction and a length."""
    angles = torch.linspace(0, math.pi, classes + 1)[:-1] + draw.uniform(0, math.pi)
    lengths = 3 + 6 * draw.rand(classes)
    across = torch.arange(SIDE) - SIDE / 2
    position = (
        angles.cos()[labels][:, None, None] * across[None, :, None]
        + angles.sin()[labels][:, None, None] * across[None, None, :]
    )
    phases = 2 * math.pi * draw.rand(len(labels))[:, None, None]
    return torch.sin(2 * math.pi * position / lengths[labels][:, None, None] + phases)


def _blobs(draw: Draw, labels: Tensor, classes: int) -> Tensor:
    """Return two blobs at jittered positions; a class is the positions and widths."""
    grid = torch.arange(SIDE, dtype=torch.float32)
    images = torch.zeros(len(labels), SIDE, SIDE)
    for _ in range(2):
        centres = draw.rand(classes, 2) * SIDE
        widths = (1 + 2 * draw.rand(classes))[labels][:, None]
        centers = centres[labels] + 1.5 * draw.normal(len(labels), 2)
        rows, columns = (torch.exp(-(((grid - centers[:, axis, None]) / widths) ** 2)) for axis in range(2))
        images += rows[:, :, None] * columns[:, None, :]
    return images * 3


def _convolutional(draw: Draw, *, normalised: bool) -> Problem:
    data = _images(draw)
    train, valid = split(draw, data)
    scale, gain = draw.log_uniform(0.2, 3), draw.log_uniform(0.7, 2)
    pooling = draw.chance(0.2)  # rarely, and small: it costs five times as much as strides
    channels = (1, 4, 8) if pooling else (1, draw.pick((4, 8)), draw.pick((8, 16)))
    params: Params = {}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        weight = draw.normal(outputs, inputs, 3, 3) * (gain / (3 * math.sqrt(inputs)))
        params[f"conv.{layer}.weight"] = weight
        params[f"conv.{layer}.bias"] = torch.zeros(outputs)
        if normalised:
            params[f"norm.{layer}.weight"] = torch.ones(outputs)
    params |= dense_params(draw, "head", channels[-1] * (SIDE // 4) ** 2, data.classes)

    def losses(params: Params, batch: Batch) -> Tensor:
        return cross_entropy(dense(params, "head", _features(params, batch[0], pooling=pooling)), batch[1])

    return Problem(
        params=params,
        losses=losses,
        train=Examples(train.inputs * scale, train.targets),
        valid=Examples(valid.inputs * scale, valid.targets),
        batch_size=16 if pooling else draw.pick((16, 32)),
        num_classes=data.classes,
    )


def _features(params: Params, images: Tensor, *, pooling: bool) -> Tensor:
    """Return what two convolutions make of images (rows, 1, SIDE, SIDE): (n, rows, features)."""
    stride = 1 if pooling else 2
    copies = len(params["head.weight"])
    maps = images
    for layer in range(2):
        weight, bias = params[f"conv.{layer}.weight"].flatten(0, 1), params[f"conv.{layer}.bias"]
        # The copies' channels lie side by side; the first layer's copies share their input.
        groups = 1 if layer == 0 else copies
        maps = torch.conv2d(maps, weight, bias.flatten(), stride=stride, padding=1, groups=groups)
        if f"norm.{layer}.weight" in params:
            gains = params[f"norm.{layer}.weight"].flatten()
            maps = functional.batch_norm(maps, None, None, gains, training=True)
        maps = functional.max_pool2d(torch.relu(maps), 2) if pooling else torch.relu(maps)
    return maps.reshape(len(images), copies, -1).transpose(0, 1)
