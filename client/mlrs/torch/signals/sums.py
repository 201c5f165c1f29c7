"""The numbers of one step, summed up on the devices of its sample, and read when they have arrived."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import add
from typing import Final, final

import torch

from mlrs.torch.arrival import Arrival
from mlrs.torch.signals.sample import Piece
from mlrs.types import Signals

NUMBERS: Final = 9
"""How many numbers a process has of a step: five sums; that of logarithms and of their weights; whether the
step was skipped; and 1, which an absent process's zeros lack."""
TINY: Final = 1e-12
"""Added to norms whose logarithm is taken."""
NONE: Final = (0.0,) * NUMBERS
"""The numbers of a process that has none."""


def sums(
    piece: Piece,
    weights: torch.Tensor,
    gradient: torch.Tensor,
    update: torch.Tensor,
    previous: torch.Tensor | None,
    skipped: torch.Tensor | None,
) -> torch.Tensor:
    """Return the numbers of a step but the last, for the tensors of one device: (8,), on the device.

    Args:
        piece: the coordinates that the sample has on the device; n of them.
        weights: (n,): after the step.
        gradient: (n,): as the optimizer saw it.
        update: (n,): the change of the weights.
        previous: (n,): the update of the step before, if it is known.
        skipped: one number, not 0 if the optimizer left the weights alone because a gradient is not finite.
    """
    weighted, sloped, moved = (
        one if piece.scale is None else one * piece.scale for one in (weights, gradient, update)
    )
    unknown = torch.full((), math.nan, dtype=update.dtype, device=update.device)
    return torch.stack(
        [
            moved.dot(update),
            weighted.dot(weights),
            sloped.dot(gradient),
            sloped.dot(update),
            unknown if previous is None else sloped.dot(previous),
            _logarithms(piece, weights, update),
            torch.full_like(unknown, sum(piece.shares)),
            torch.zeros_like(unknown) if skipped is None else skipped.reshape(()).to(unknown),
        ]
    )


def _logarithms(piece: Piece, weights: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """Return the sum over tensors of ln(norm of u / norm of w) times the tensor's share."""
    if not piece.counted:
        return torch.zeros_like(update[0])
    counts = [part.count for part in piece.parts]
    vectors = [torch.split(flat, counts) for flat in (update, weights)]
    chosen = [parts[at] for parts in vectors for at in piece.counted]
    norms = torch.stack(torch._foreach_norm(chosen))  # noqa: SLF001  # optimizers use it, too
    of_update, of_weights = norms.add_(TINY).log_().chunk(2)
    relative = of_update - of_weights
    if any(share != 1.0 for share in piece.shares):
        relative *= torch.tensor(piece.shares, dtype=relative.dtype).to(relative.device, non_blocking=True)
    return relative.sum()


@final
class Measured:
    """The numbers of a step in this process, on their way to the host."""

    def __init__(self, parts: Sequence[torch.Tensor]) -> None:
        """`parts`: the sums of each device."""
        self._arrivals = [Arrival(part) for part in parts]

    def has_arrived(self) -> bool:
        """Return whether they can be read at once."""
        return all(one.has_arrived() for one in self._arrivals)

    def numbers(self) -> list[float]:
        """Return the numbers; waits until they have arrived."""
        totals = [0.0] * (NUMBERS - 1)
        for one in self._arrivals:
            totals = list(map(add, totals, one.values()))
        return [*totals, 1.0]


def numbers_of(measured: Measured | None) -> Sequence[float]:
    """Return the numbers of a step; waits until they have arrived. All are 0 if it was not measured."""
    return NONE if measured is None else measured.numbers()


def signals_of(numbers: Sequence[float]) -> Signals | None:
    """Return the signals that the numbers of all processes make, of which they are the means.

    `None`: a process has none, or the optimizer skipped the step. What is not finite is not known.
    """
    *known, logarithms, shares, skipped, present = numbers
    if present != 1.0 or skipped != 0.0:
        return None
    relative = logarithms / shares if shares else math.nan
    update, parameter, gradient, slope, previous, relative = (
        one if math.isfinite(one) else math.nan for one in (*known, relative)
    )
    return Signals(
        update_norm2=update,
        param_norm2=parameter,
        grad_norm2=gradient,
        grad_dot_update=slope,
        grad_dot_previous_update=previous,
        log_relative_update=relative,
    )
