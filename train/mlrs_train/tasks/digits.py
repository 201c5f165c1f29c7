"""Handwritten digits (scikit-learn's copy of a UCI set, 1,797 images of 8x8) with a small CNN."""

from __future__ import annotations

import torch
from torch import nn

from mlrs_train.tasks.task import Examples, Task, module_task

PARTS = (1000, 397, 400)
"""Images to train on, to hold out, to test on."""
MAX_PIXEL = 16.0
"""The brightest pixel."""


def digits_cnn(generator: torch.Generator) -> Task:
    """Return the task: ten classes, 10,000 parameters, batches of 16."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=generator)
    inputs = torch.from_numpy(images).float().div(MAX_PIXEL).reshape(-1, 1, 8, 8)
    examples = Examples(inputs[order], torch.from_numpy(labels).long()[order])
    return module_task(_network, num_classes=10, parts=examples.split(PARTS), batch_size=16)


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
