"""Tables: disease progression of 442 diabetics, and a generated classification. Long horizons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlrs_bench.task import Examples, Splits, Task, share_correct, squared_error

HORIZON = 4000
"""Four times the longest that meta-training saw."""


def tabular_regression() -> Task:
    """Return a perceptron of one hidden layer on the diabetes set, in standard deviations."""
    return Task(
        name="tabular-regression",
        load=_diabetes,
        network=lambda: nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1)),
        horizon=HORIZON,
        batch_size=32,
        loss=squared_error,
        loss_name="mean squared error, variances",
    )


def tabular_classification() -> Task:
    """Return a perceptron of two hidden layers; is a point of ten numbers far from 0?

    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, eq. 10.2.
    """
    return Task(
        name="tabular-classification",
        load=_hastie,
        network=lambda: nn.Sequential(
            nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2)
        ),
        horizon=HORIZON,
        batch_size=32,
        num_classes=2,
        accuracy=share_correct,
    )


def _diabetes() -> Splits:
    from sklearn.datasets import load_diabetes

    inputs, targets = map(torch.from_numpy, load_diabetes(return_X_y=True, scaled=False))
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    parts = (282, 80, 80)
    columns = _standard(inputs[order], parts[0]), _standard(targets[order][:, None], parts[0])
    return Splits.of(Examples(*columns), *parts)


def _hastie() -> Splits:
    from sklearn.datasets import make_hastie_10_2

    parts = (4000, 2000, 4000)
    inputs, signs = make_hastie_10_2(n_samples=sum(parts), random_state=0)
    examples = Examples(torch.from_numpy(inputs).float(), torch.from_numpy(signs > 0).long())
    return Splits.of(examples, *parts)


def _standard(columns: Tensor, known: int) -> Tensor:
    """Return columns in standard deviations from the mean of the first rows, those to train on."""
    seen = columns[:known]
    return ((columns - seen.mean(0)) / seen.std(0)).float()
