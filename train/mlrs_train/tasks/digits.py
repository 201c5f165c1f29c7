"""Handwritten digits (scikit-learn's copy of a UCI set, 1,797 images of 8x8) with a small CNN."""

from __future__ import annotations

import torch
from torch import nn

from mlrs_train.tasks.task import BaseTask, Examples, module_task

PARTS = (1000, 397, 400)
"""Images to train on, to hold out, to test on."""
MAX_PIXEL = 16.0
"""The brightest pixel."""


def digits_cnn(generator: torch.Generator) -> BaseTask:
    """Return the task: ten classes, 10,000 parameters, batches of 16."""
    parts = shuffled_digits(generator).split(PARTS)
    return module_task(_network, num_classes=10, parts=parts, batch_size=16)


def shuffled_digits(generator: torch.Generator) -> Examples:
    """Return all images (n, 1, 8, 8), in [0, 1], and their labels (n,), in a random order."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=generator)
    inputs = torch.from_numpy(images).float().div(MAX_PIXEL).reshape(-1, 1, 8, 8)
    return Examples(inputs[order], torch.from_numpy(labels).long()[order])


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )
