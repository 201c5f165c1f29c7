"""Tasks that take milliseconds: three blobs, with a small network."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from mlrs_bench.task import Examples, Splits, Task, cross_entropy, share_correct


def load() -> Splits:
    """Return 100 points for each part."""
    labels = torch.arange(300) % 3
    noise = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    return Splits.of(Examples(2 * torch.eye(3)[labels] + noise, labels), 100, 100, 100)


def network() -> nn.Module:
    """Return a network with batch normalization."""
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def forgetful_network() -> nn.Module:
    """Return a network with batch normalization and dropout."""
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def slow_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy, late: so that a test can interrupt the training."""
    time.sleep(0.01)
    return cross_entropy(outputs, targets)


TASKS = [
    Task(
        name="tiny",
        load=load,
        network=network,
        horizon=20,
        batch_size=10,
        num_classes=3,
        accuracy=share_correct,
    ),
    Task(
        name="long",
        load=load,
        network=forgetful_network,
        horizon=200,
        batch_size=10,
        num_classes=3,
        accuracy=share_correct,
    ),
    Task(
        name="slow",
        load=load,
        network=network,
        horizon=20,
        batch_size=10,
        num_classes=3,
        loss=slow_loss,
    ),
]
