"""The training loss of an update, made of the losses that were backpropagated for it."""

from __future__ import annotations

from typing import final

import torch

from mlrs.lightning.framework import LightningModule, Trainer


@final
class Losses:
    """The losses that were backpropagated since the last update.

    In automatic optimization, the loss of an update is the mean of the losses of its batches, before
    Lightning divides them by `accumulate_grad_batches`. In manual optimization it is the sum of what was
    backpropagated since the last update of any optimizer, whose gradient is the gradient of the update;
    several optimizers that are stepped one after the other share it.
    """

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._is_spent = False  # whether an update has used them

    def add(self, trainer: Trainer, loss: torch.Tensor) -> None:
        """Add a loss as Lightning backpropagates it, scaled if there is a `GradScaler`."""
        if self._is_spent:
            self._losses, self._is_spent = [], False
        loss = loss.detach()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            loss = loss / scaler.scale(torch.ones_like(loss))  # `get_scale()` would wait for the device
        self._losses.append(loss)

    def are_complete(self, trainer: Trainer, module: LightningModule) -> bool:
        """Return whether this is known to be the last loss before an update."""
        return module.automatic_optimization and len(self._losses) == trainer.accumulate_grad_batches

    def spend(self) -> None:
        """Begin anew with the next loss: an update has used these."""
        self._is_spent = True

    def total(self, trainer: Trainer, module: LightningModule) -> torch.Tensor | None:
        """Return the loss of the update; `None` if nothing was backpropagated."""
        if not self._losses or (self._is_spent and module.automatic_optimization):
            return None
        total = self._losses[0] if len(self._losses) == 1 else torch.stack(self._losses).sum()
        batches = trainer.accumulate_grad_batches
        if module.automatic_optimization and batches != len(self._losses):  # the last batches of an epoch
            total = total * (batches / len(self._losses))
        return total
