"""Losses of PyTorch loops as numbers, read from a device without blocking the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlrs.adapters import number
from mlrs.errors import InvalidArgumentError


class Loss:
    """A loss, which may not have arrived from its device yet."""

    def __init__(self, loss: torch.Tensor | float) -> None:
        self.is_here = not isinstance(loss, torch.Tensor) or _is_on_host(loss)
        self._arrival: torch.cuda.Event | None = None
        self._loss = loss
        if isinstance(loss, torch.Tensor) and loss.device.type == "cuda":
            # The copy is queued after the loss's computation and before the loop's next work on the device.
            self._loss = torch.empty((), dtype=loss.dtype, pin_memory=True)
            self._loss.copy_(loss.detach().reshape(()), non_blocking=True)
            self._arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrival.record(torch.cuda.current_stream(loss.device))

    def value(self) -> float:
        """Return the loss; waits until it has arrived."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return number("loss", self._loss.item() if isinstance(self._loss, torch.Tensor) else self._loss)


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
