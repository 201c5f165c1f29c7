"""Data for classifiers: generated, or packaged with scikit-learn; and what can spoil it.

Packaged are wine, breast_cancer and iris only. The others that come with scikit-learn or Python
(digits, diabetes, text) are left to those who judge the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.tasks import Examples

VALID = 512
"""Examples that a result is judged on, where data is generated."""
PACKAGED = ("wine", "breast_cancer", "iris")
"""scikit-learn's sets that are trained on."""


@dataclass(frozen=True)
class Labelled:
    """Examples of classes."""

    inputs: Tensor
    """(n, ...) float32, about standard normal."""
    labels: Tensor
    """(n,) int64."""
    classes: int
    """C."""
    held: int = VALID
    """How many of them, the first ones, a result is judged on."""


def teacher(draw: Draw) -> Labelled:
    """Return normal inputs, labelled by a random network."""
    features, classes, width = draw.whole(4, 32), draw.whole(2, 10), draw.pick((8, 32, 64))
    inputs = draw.normal(VALID + draw_count(draw, 5000), features)
    hidden = torch.tanh(inputs @ draw.normal(features, width) / features**0.5 * draw.uniform(0.5, 3))
    scores = hidden @ draw.normal(width, classes)
    return Labelled(inputs, (scores - scores.mean(0)).argmax(1), classes)


def mixture(draw: Draw) -> Labelled:
    """Return a mixture of Gaussians, one to three to a class, each with its own shape."""
    features, classes, parts = draw.whole(4, 32), draw.whole(2, 10), draw.whole(1, 3)
    count, spread = VALID + draw_count(draw, 5000), draw.log_uniform(0.5, 4)
    centres = draw.normal(classes * parts, features) * spread / features**0.25
    shapes = 0.3 + draw.rand(classes * parts, features)
    component = draw.integers(classes * parts, count)
    inputs = centres[component] + shapes[component] * draw.normal(count, features)
    return Labelled(_standard(inputs), component % classes, classes)


def packaged(draw: Draw) -> Labelled:
    """Return one of scikit-learn's small sets, in random order."""
    whole = _load(draw.pick(PACKAGED))
    order = torch.randperm(len(whole.labels), generator=draw.tensors)
    return Labelled(whole.inputs[order], whole.labels[order], whole.classes, len(order) // 4)


@cache
def _load(name: str) -> Labelled:
    from sklearn import datasets

    inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    targets = torch.from_numpy(labels).long()
    return Labelled(_standard(torch.from_numpy(inputs).float()), targets, int(targets.max()) + 1)


def split(draw: Draw, data: Labelled) -> tuple[Examples, Examples]:
    """Return examples to train on and to judge on, at random with noisy or unequal labels."""
    valid = Examples(data.inputs[: data.held], data.labels[: data.held])
    inputs, labels = data.inputs[data.held :], data.labels[data.held :]
    if draw.chance(0.2):
        inputs, labels = _unequal(draw, inputs, labels, data.classes)
    if draw.chance(0.4):
        share = draw.uniform(0.05, 0.4)
        labels = _noisy(draw, labels, data.classes, share)
        if draw.chance(0.5):
            valid = Examples(valid.inputs, _noisy(draw, valid.targets, data.classes, share))
    return Examples(inputs, labels), valid


def _noisy(draw: Draw, labels: Tensor, classes: int, share: float) -> Tensor:
    """Return labels of which a share is drawn at random."""
    return torch.where(draw.rand(len(labels)) < share, draw.integers(classes, len(labels)), labels)


def _unequal(draw: Draw, inputs: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return fewer examples of some classes, down to a tenth."""
    keep = torch.logspace(0, -1, classes)[torch.randperm(classes, generator=draw.tensors)]
    rows = draw.rand(len(labels)) < keep[labels]
    return inputs[rows], labels[rows]


def draw_count(draw: Draw, most: int) -> int:
    """Return how many examples to train on.

    In three tenths from 60 to 400: where few are seen a hundred times, a policy must learn to hold back.
    """
    return int(draw.log_uniform(60, 400) if draw.chance(0.3) else draw.log_uniform(most / 2, most))


def _standard(inputs: Tensor) -> Tensor:
    return (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-6)
