"""Following an optimizer's steps: copies before a step, numbers after it, one warning if that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final

import torch
from torch.optim import Optimizer

from mlrs.torch.shards import is_spread
from mlrs.torch.signals.cadence import is_copied, is_measured
from mlrs.torch.signals.sample import Sample, members_of
from mlrs.torch.signals.sums import Measured, sums

_logger = logging.getLogger("mlrs")

DECOUPLED = tuple(
    getattr(torch.optim, name) for name in ("AdamW", "Adafactor", "Muon") if hasattr(torch.optim, name)
)
"""PyTorch's optimizers that always decay weights apart from their updates; others have a setting for it."""


class _Copies(NamedTuple):
    """What is copied before a step, piece by piece of the sample."""

    step: int
    sample: Sample
    weights: list[torch.Tensor]
    """After the step, those which it would have ended at if it was of decoupled weight decay alone."""
    gradients: list[torch.Tensor] | None
    """`None`: the step is not measured."""
    previous: Sequence[torch.Tensor | None] | None
    """The update of the step before, if it is known."""


@final
class Recorder:
    """Computes the signals of the steps of an optimizer, without an error and without waiting for a device.

    Where it fails, it logs one warning, and computes none from then on.
    """

    def __init__(self, optimizer: Optimizer, *, is_on: bool) -> None:
        """`is_on`: whether to compute any signals."""
        self._optimizer = optimizer
        self._is_on = is_on
        self._sample: Sample | None = None
        self._before: _Copies | None = None  # of the present step
        self._last: _Copies | None = None  # of the last one
        self._measured: Measured | None = None  # since the last observation
        self._taken: tuple[int, Measured | None] | None = None  # by the observation of a step

    def is_sharded(self) -> bool:
        """Return whether the signals are sums over the processes, because parameters are sharded."""
        groups = self._optimizer.param_groups
        return self._is_on and any(is_spread(one) for group in groups for one in group["params"])

    def before(self, step: int) -> None:
        """Copy what the optimizer is about to change at a step; of several calls, the first one counts.

        An optimizer that makes several updates within a step has no signals of that step.
        """
        if self._before is not None and self._before.step == step:
            return
        self._before = None  # of a step that was not made
        if self._last is not None and self._last.step == step:
            self._last = self._measured = None
        elif self._is_on and is_copied(step):
            self._guarded(lambda: self._copy(step))

    def after(self) -> None:
        """Compute the numbers of the step that the optimizer has made."""
        before, self._before = self._before, None
        if before is not None:
            self._guarded(lambda: self._measure(before))

    def take(self, step: int, *, is_late: bool = True) -> Measured | None:
        """Return the numbers to send with the observation of a step: those of the last step, or `None`.

        An observation that is sent again gets the same.

        Args:
            step: the step that is observed.
            is_late: whether it may wait until they have arrived; otherwise late ones are dropped.
        """
        if self._taken is None or self._taken[0] != step:
            measured, self._measured = self._measured, None
            is_there = measured is not None and (is_late or measured.has_arrived())
            self._taken = (step, measured if is_there else None)
        return self._taken[1]

    def forget(self) -> None:
        """Forget the steps so far: the next one is not one after them."""
        self._before = self._last = self._measured = self._taken = None

    def stop(self) -> None:
        """Compute none from now on."""
        self._is_on, self._sample = False, None
        self.forget()

    @torch.no_grad()
    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001  # training must not fail for what only informs
            self.stop()
            _logger.warning("no signals of the optimizer's steps are sent from now on: %r", error)

    def _copy(self, step: int) -> None:
        members = members_of(self._optimizer)
        if not members or _is_captured(members[0][1]):
            self._before = None
            return
        if self._sample is None or not self._sample.is_of(members):
            self._sample = Sample(self._optimizer, members)
        weights = self._sample.weights()
        gradients, previous = None, None
        if is_measured(step):
            gradients = self._sample.gradients()
            scale = getattr(self._optimizer, "grad_scale", None)
            if scale is not None:
                for one in gradients:  # a fused optimizer unscales them in its step
                    one.div_(scale.to(one.device, non_blocking=True))
            last = self._last
            if last is not None and last.sample is self._sample and last.step == step - 1:
                previous = [new - old for new, old in zip(weights, last.weights, strict=True)]
        self._before = _Copies(step, self._sample, weights, gradients, previous)

    def _measure(self, before: _Copies) -> None:
        pieces = before.sample.pieces
        skipped = getattr(self._optimizer, "found_inf", None)  # of a fused optimizer with a GradScaler
        for piece, weights in zip(pieces, before.weights, strict=True):
            for group, begin, end in piece.groups:
                self._decay(self._optimizer.param_groups[group], weights[begin:end], skipped)
        self._last = before
        if before.gradients is None:
            return
        after = before.sample.weights()
        updates = [new - old for new, old in zip(after, before.weights, strict=True)]
        previous = [None] * len(pieces) if before.previous is None else before.previous
        columns = (pieces, after, before.gradients, updates, previous)
        self._measured = Measured([sums(*row, skipped) for row in zip(*columns, strict=True)])

    def _decay(self, group: dict[str, Any], weights: torch.Tensor, skipped: torch.Tensor | None) -> None:
        """Decay some weights as the optimizer does apart from its update.

        That is known of PyTorch's optimizers; what any other does counts as its update.
        """
        decay = group.get("weight_decay", 0.0)
        is_decoupled = group.get("decoupled_weight_decay", isinstance(self._optimizer, DECOUPLED))
        if not is_decoupled or (not isinstance(decay, torch.Tensor) and not decay):
            return
        amount = group["lr"] * decay
        if skipped is not None:
            is_made = skipped.reshape(()).to(weights.device, non_blocking=True) == 0
            amount = is_made.to(weights.dtype) * amount
        weights.mul_(1 - amount)


def _is_captured(parameter: torch.Tensor) -> bool:
    """Return whether the step is being captured in a CUDA graph, which replays without Python."""
    return parameter.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
