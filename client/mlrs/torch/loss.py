"""Losses of PyTorch loops as numbers, read from a device without blocking the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlrs.adapters import number
from mlrs.errors import InvalidArgumentError
from mlrs.torch.arrival import Arrival


class Loss:
    """A loss, which may not have arrived from its device yet."""

    def __init__(self, loss: torch.Tensor | float) -> None:
        self._arrival = Arrival(loss) if isinstance(loss, torch.Tensor) else None
        self._loss = loss
        self.is_here = not isinstance(loss, torch.Tensor) or _is_on_host(loss)

    def value(self) -> float:
        """Return the loss; waits until it has arrived."""
        return number("loss", self._loss if self._arrival is None else self._arrival.values()[0])


def _is_on_host(loss: torch.Tensor) -> bool:
    return loss.device.type == "cpu"


def loss_of(loss: torch.Tensor | float) -> Loss:
    """Return a checked loss."""
    if not isinstance(loss, torch.Tensor):
        return Loss(number("loss", loss))
    if loss.numel() != 1 or loss.is_complex():
        raise InvalidArgumentError(
            f"loss must be one real number, is a {loss.dtype} tensor of shape {tuple(loss.shape)};"
            " reduce it first, as with loss.mean()",
            field="loss",
        )
    loss = loss.detach()
    return Loss(loss.item() if _is_on_host(loss) else loss)


def mean_of(losses: Sequence[tuple[Loss, float]]) -> tuple[float, float]:
    """Return the mean of losses and their number of samples; waits for them. The mean of none is 0."""
    samples = sum(count for _, count in losses)
    total = sum(loss.value() * count for loss, count in losses if count)
    return (total / samples if samples else 0.0), samples
