"""Handwritten digits (scikit-learn's copy of a UCI set, 1,797 images of 8 by 8): five tasks."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from mlrs_bench.task import Examples, Splits, Task, share_correct, squared_error
from mlrs_train.tasks.digits import shuffled_digits

PARTS = (1000, 397, 400)
"""Images to train on, to validate on, to test on."""
CLASSES = 10
"""Digits."""
NOISE = 0.4
"""The share of training labels that are drawn anew in the noisy task."""
TENTH = 100
"""Images to train on in the small task."""


def digits_cnn() -> Task:
    """Return a small CNN on all images: 10,000 parameters."""
    return _cnn("digits-cnn", 400)


def digits_cnn_noisy() -> Task:
    """Return the same, but 40 % of the training labels are random: what is fitted last is wrong."""
    return _cnn("digits-cnn-noisy", 600, noise=NOISE)


def digits_cnn_tenth() -> Task:
    """Return the same with a tenth of the images to train on."""
    return _cnn("digits-cnn-tenth", 300, count=TENTH)


def digits_autoencoder() -> Task:
    """Return an autoencoder through eight numbers; the mean squared error of pixels in [0, 1]."""
    return Task(
        name="digits-autoencoder",
        load=_reconstruction,
        network=lambda: nn.Sequential(
            nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 8), nn.Linear(8, 48), nn.Tanh(), nn.Linear(48, 64)
        ),
        horizon=1000,
        batch_size=32,
        loss=squared_error,
        loss_name="mean squared error",
    )


def linear() -> Task:
    """Return a softmax regression on the pixels: convex, and four times as long as meta-training saw."""
    return Task(
        name="linear",
        load=lambda: _splits(flat=True),
        network=lambda: nn.Linear(64, CLASSES),
        horizon=4000,
        batch_size=16,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


def _cnn(name: str, horizon: int, *, noise: float = 0.0, count: int = PARTS[0]) -> Task:
    return Task(
        name=name,
        load=lambda: _splits(noise=noise, count=count),
        network=_network,
        horizon=horizon,
        batch_size=32,
        num_classes=CLASSES,
        accuracy=share_correct,
    )


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, CLASSES),
    )


@cache
def _digits() -> Examples:
    """Return all images and labels, in a random order that is always the same."""
    return shuffled_digits(torch.Generator().manual_seed(0))


def _splits(*, noise: float = 0.0, count: int = PARTS[0], flat: bool = False) -> Splits:
    digits = _digits()
    images = digits.inputs.flatten(1) if flat else digits.inputs
    splits = Splits.of(Examples(images, digits.targets), *PARTS)
    generator = torch.Generator().manual_seed(1)
    wrong = torch.rand(PARTS[0], generator=generator) < noise
    others = torch.randint(CLASSES, (PARTS[0],), generator=generator)
    noisy = Examples(splits.train.inputs, torch.where(wrong, others, splits.train.targets))
    return Splits(train=noisy[:count], valid=splits.valid, test=splits.test)


def _reconstruction() -> Splits:
    pixels = _digits().inputs.flatten(1)
    return Splits.of(Examples(pixels, pixels), *PARTS)
