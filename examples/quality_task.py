"""A task of one's own for the quality benchmark: two interleaved half-moons, classified by a small network.

mlrs bench quality --task-file examples/quality_task.py --tasks moons --optimizers sgd --seeds 2
"""

from __future__ import annotations

import torch
from sklearn.datasets import make_moons
from torch import nn

from mlrs_bench.task import Examples, Splits, Task, share_correct


def load() -> Splits:
    """Return 800 points to train on, 400 to validate on, 800 to test on; the same at each call."""
    points, moons = make_moons(2000, noise=0.2, random_state=0)
    examples = Examples(torch.from_numpy(points).float(), torch.from_numpy(moons).long())
    return Splits.of(examples, train=800, valid=400, test=800)


def network() -> nn.Module:
    """Return the network, with weights from torch's global generator."""
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))


TASKS = [
    Task(
        name="moons",
        load=load,
        network=network,
        horizon=200,
        batch_size=16,
        num_classes=2,
        accuracy=share_correct,
    )
]
