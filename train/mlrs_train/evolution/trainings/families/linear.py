"""Problems whose curvature is known: noisy quadratics and least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families.networks import dense, dense_params, squared_error
from mlrs_train.evolution.trainings.problem import Problem
from mlrs_train.tasks import Batch, Examples, Params


def quadratic(draw: Draw) -> Problem:
    """Return the loss 1/2 |A (w - x)|^2 over noisy centres x: curvatures over up to three decades."""
    size = draw.whole(4, 40)
    curvatures = torch.logspace(0, -draw.uniform(0.3, 3), size) * draw.log_uniform(0.05, 5)
    rotation, _ = torch.linalg.qr(draw.normal(size, size))
    matrix = curvatures.sqrt()[:, None] * rotation
    noise = draw.log_uniform(0.03, 1)
    centres = (draw.normal(size) + noise * draw.normal(2000, size)) @ matrix.T

    def losses(params: Params, batch: Batch) -> Tensor:
        moved = params["weights"] @ matrix.T
        difference: Tensor = moved[:, None, :] - batch[0]
        return difference.square().sum(2).mean(1) / 2

    train, valid = Examples(centres, centres).split((1500, 500))
    return Problem(
        params={"weights": draw.normal(size) * draw.log_uniform(0.3, 3)},
        losses=losses,
        train=train,
        valid=valid,
        batch_size=draw.pick((1, 4, 16)),
        num_classes=None,
    )


def least_squares(draw: Draw) -> Problem:
    """Return a linear regression: features of unequal scales, targets of any scale, noise."""
    features, outputs = draw.whole(4, 48), draw.whole(1, 4)
    scales = torch.logspace(0, -draw.uniform(0, 1.5), features) * draw.log_uniform(0.1, 3)
    inputs = draw.normal(2500, features) * scales
    clean = inputs @ draw.normal(features, outputs)
    noise = draw.log_uniform(0.01, 1) * clean.std() * draw.normal(*clean.shape)
    targets = (clean + noise) * draw.log_uniform(0.1, 3)
    train, valid = Examples(inputs, targets).split((2000, 500))
    return Problem(
        params=dense_params(draw, "dense", features, outputs),
        losses=lambda params, batch: squared_error(dense(params, "dense", batch[0]), batch[1]),
        train=train,
        valid=valid,
        batch_size=draw.pick((8, 32, 128)),
        num_classes=None,
    )
