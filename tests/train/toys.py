"""Tasks small enough for tests."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mlrs_train.tasks import BaseTask, Batch, Examples, Params

BLOBS = 3
"""Classes of the toy task."""


def blobs(generator: torch.Generator) -> BaseTask:
    """Return a linear classifier of three Gaussian blobs: 5 steps per epoch."""
    targets = torch.arange(60) % BLOBS
    centres = torch.eye(BLOBS) * 2
    inputs = centres[targets] + torch.randn(60, BLOBS, generator=generator)
    train, held_out, test = Examples(inputs, targets).split((40, 10, 10))
    return BaseTask(
        num_classes=BLOBS,
        init=lambda generator: {"w": torch.randn(BLOBS, BLOBS, generator=generator) / 10},
        loss=lambda params, batch: torch.nn.functional.cross_entropy(batch[0] @ params["w"], batch[1]),
        train=train,
        held_out=held_out,
        test=test,
        batch_size=8,
    )


def quadratic(curvature: float) -> Callable[[torch.Generator], BaseTask]:
    """Return the loss c/2 |w|^2, whose best learning rate is 1/c, as a task: 20 steps per epoch."""

    def loss(params: Params, batch: Batch) -> torch.Tensor:
        # The batch only says how much of the loss it is: all of it.
        return curvature / 2 * (params["w"] ** 2).sum() * batch[0].mean()

    def build(_generator: torch.Generator) -> BaseTask:
        ones = Examples(torch.ones(20), torch.ones(20))
        return BaseTask(
            num_classes=10,
            init=lambda generator: {"w": 10 * torch.randn(4, generator=generator)},
            loss=loss,
            train=ones,
            held_out=ones,
            test=ones,
            batch_size=1,
        )

    return build
